"""Load a Stable Diffusion pipeline from a folder or a hub id."""

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline

from edits.errors import ModelLoadError


def load_pipeline(
    model: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> StableDiffusionPipeline:
    """The pipeline in `model`, an existing folder or else a hub id, ready to draw.

    Raises ModelLoadError if it cannot be read or is not of the Stable Diffusion 1.x or 2.x layout.
    """
    if model.startswith((".", "/", "~")) and not Path(model).expanduser().is_dir():
        raise ModelLoadError(
            f"model folder {Path(model).name!r} does not exist; give a diffusers folder or a hub id"
        )
    source = str(Path(model).expanduser()) if Path(model).expanduser().is_dir() else model
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(
            source, dtype=dtype, local_files_only=Path(source).is_dir()
        )
    except (OSError, ValueError, TypeError, KeyError) as error:
        # The library's message may hold paths and addresses: it goes to the log as the cause only.
        raise ModelLoadError(
            f"model {Path(model).name!r} cannot be loaded as a StableDiffusionPipeline; "
            "it needs model_index.json with tokenizer, text_encoder, unet, vae and scheduler"
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)
