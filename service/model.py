"""The loaded pipeline and the facts about it that requests are checked against."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch

from edits.loading import load_pipeline
from edits.method import Editor
from edits.model_card import ModelDefaults
from service.errors import SettingsInvalid
from service.settings import Settings

__all__ = ["ServedModel", "SizeLimits"]

# diffusers' own rule for pixel sizes; the UNet's halvings may ask for more.
_PIXEL_MULTIPLE = 8


@dataclass(frozen=True, slots=True)
class SizeLimits:
    """Image sizes in pixels that the model takes."""

    native: int
    smallest: int
    largest: int
    multiple: int

    @classmethod
    def of(cls, pipeline: Any) -> Self:
        """Half to twice the native size, in multiples that survive every halving of the UNet."""
        scale = int(pipeline.vae_scale_factor)
        sample = pipeline.unet.config.sample_size
        native = scale * int(sample if isinstance(sample, int) else sample[0])
        halvings = len(pipeline.unet.config.block_out_channels) - 1
        multiple = math.lcm(_PIXEL_MULTIPLE, scale * 2**halvings)
        smallest = max(multiple, native // 2 // multiple * multiple)
        return cls(native, smallest, 2 * native, multiple)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One pipeline on one device, with its editor and its defaults."""

    name: str
    pipeline: Any  # diffusers.StableDiffusionPipeline
    editor: Editor
    defaults: ModelDefaults
    sizes: SizeLimits
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def load(cls, settings: Settings) -> Self:
        """Load what the settings name. Raises ModelLoadError, SettingsInvalid."""
        torch.set_num_threads(settings.threads)
        device = torch.device(_device(settings.device))
        if device.type == "cpu" and settings.dtype == "float16":
            raise SettingsInvalid(
                "dtype float16 needs a GPU and there is none; use float32 or bfloat16",
                param="QUICKFIX_DTYPE",
            )
        dtype: torch.dtype = getattr(torch, settings.dtype)
        pipeline = load_pipeline(settings.model, device=str(device), dtype=dtype)
        defaults = ModelDefaults.read(Path(settings.model))
        editor = Editor(pipeline, ordinary=defaults.ordinary_captions)
        editor.warm(defaults.edit_sites, folder=settings.state_dir)
        name = _public_name(settings.model)
        return cls(name, pipeline, editor, defaults, SizeLimits.of(pipeline), device, dtype)

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        """(channels, rows, columns) of the latents of an image of so many pixels."""
        scale = int(self.pipeline.vae_scale_factor)
        return (int(self.pipeline.unet.config.in_channels), height // scale, width // scale)

    @property
    def layout(self) -> Literal["sd-1.x", "sd-2.x"]:
        """SD 1.x pads prompts with end-of-text, SD 2.x with another token."""
        tokenizer = self.pipeline.tokenizer
        pads_with_end = tokenizer.pad_token_id == tokenizer.eos_token_id
        return "sd-1.x" if pads_with_end else "sd-2.x"

    @property
    def parameters(self) -> int:
        """Parameters of UNet, VAE and text encoder."""
        parts = (self.pipeline.unet, self.pipeline.vae, self.pipeline.text_encoder)
        return sum(weight.numel() for part in parts for weight in part.parameters())

    @property
    def has_safety_checker(self) -> bool:
        """Whether images pass a safety checker before they are sent."""
        return getattr(self.pipeline, "safety_checker", None) is not None


def _device(wanted: str) -> str:
    if wanted != "auto":
        return wanted
    return "cuda" if torch.cuda.is_available() else "cpu"


def _public_name(model: str) -> str:
    """Folder name or hub id: a path of this machine is nobody else's business."""
    folder = Path(model)
    return folder.resolve().name if folder.is_dir() else model
