"""Load a pipeline from a folder or a hub id."""

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline

from edits.errors import ModelLoadError


def load_pipeline(
    model: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> StableDiffusionPipeline:
    """The pipeline in `model`, an existing folder or else a hub id, ready to draw.

    Raises ModelLoadError if it cannot be read or is not of the Stable Diffusion 1.x or 2.x layout:
    a UNet that takes more than latents, a timestep and the prompt is not.
    """
    needs = (
        "a StableDiffusionPipeline; it needs model_index.json with tokenizer, text_encoder, unet, "
        "vae and scheduler"
    )
    pipeline = _load(StableDiffusionPipeline, model, needs, device, dtype)
    config = pipeline.unet.config
    if config.time_cond_proj_dim is not None:  # it would draw other pictures, silently
        raise ModelLoadError(
            f"the UNet of model {Path(model).name!r} takes the guidance scale as an input "
            "(time_cond_proj_dim), as that of a latent consistency model does; this is not "
            "supported: give the model that it was distilled from"
        )
    for name in ("addition_embed_type", "class_embed_type", "num_class_embeds"):
        if getattr(config, name, None) is not None:
            raise ModelLoadError(
                f"the UNet of model {Path(model).name!r} takes inputs beside the prompt ({name}), "
                "as that of SDXL does; only the layouts of Stable Diffusion 1.x and 2.x are served"
            )
    latents = pipeline.vae.config.latent_channels
    if config.in_channels != latents:
        raise ModelLoadError(
            f"the UNet of model {Path(model).name!r} takes {config.in_channels} channels and its "
            f"VAE makes {latents}, as for inpainting; only models that draw from noise are served"
        )
    return pipeline


def load_any_pipeline(
    model: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> DiffusionPipeline:
    """The pipeline in `model`, of the class that it names itself. Raises ModelLoadError."""
    return _load(DiffusionPipeline, model, "a diffusers pipeline", device, dtype)


def _load(kind: Any, model: str, needs: str, device: str, dtype: torch.dtype) -> Any:
    if model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
        raise ModelLoadError(
            f"model folder {Path(model).name!r} does not exist; give a diffusers folder or a hub id"
        )
    source = str(Path(model).expanduser()) if Path(model).expanduser().is_dir() else model
    try:
        pipeline = kind.from_pretrained(source, dtype=dtype, local_files_only=Path(source).is_dir())
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        # The library's message may hold paths and addresses: it goes to the log as the cause only.
        raise ModelLoadError(f"model {Path(model).name!r} cannot be loaded as {needs}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)
