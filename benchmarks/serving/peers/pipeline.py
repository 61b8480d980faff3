"""What the peers share: their arguments, diffusers' pipeline, and one call of it."""

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from PIL.Image import Image
from pydantic import BaseModel, Field

from edits.loading import load_pipeline
from service.generation.backends.torch import unet_layout

__all__ = ["TIMEOUT_SECONDS", "Arguments", "Asked", "draw", "load", "png"]

TIMEOUT_SECONDS = 900  # of BentoML's own timer: a queue at saturation is no error


class Arguments(BaseModel):
    """Given as `bentoml serve --arg name=value`; the defaults follow `benchmarks.serving.tune`."""

    model: str = "models/demo"
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = Field(2, description="CPU threads of torch, in each worker.")
    workers: int = Field(1, description="Processes, each with a copy of the model.")
    channels_last: bool | None = Field(
        None, description="Default: the layouts of the service, the UNet's and the VAE's."
    )
    max_batch_size: int = 16
    max_latency_ms: int = Field(60_000, description="A request that would take longer is dropped.")


class Asked(BaseModel):
    """One image to draw."""

    prompt: str
    seed: int = 0
    steps: int = 20
    guidance_scale: float = 3.0


def load(arguments: Arguments) -> Any:
    """diffusers' pipeline.

    Loaded in a thread that ends, as the service does it: a team of OpenMP threads that stays behind
    would halve the speed of the one that draws (benchmarks/openmp_teams.py).
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_load, arguments).result()


def _load(arguments: Arguments) -> Any:
    torch.set_num_threads(arguments.threads)
    dtype = getattr(torch, arguments.dtype)
    pipeline = load_pipeline(arguments.model, device=arguments.device, dtype=dtype)
    device = torch.device(arguments.device)
    by_default = {
        "unet": unet_layout(device) == torch.channels_last,
        "vae": device.type == "cpu",
    }
    for name, default in by_default.items():
        if default if arguments.channels_last is None else arguments.channels_last:
            getattr(pipeline, name).to(memory_format=torch.channels_last)
    return pipeline


@torch.inference_mode()
def draw(pipeline: Any, group: Sequence[Asked]) -> list[Image]:
    """One call of the pipeline: all of the group have the same steps and guidance."""
    first = group[0]
    images: list[Image] = pipeline(
        [asked.prompt for asked in group],
        num_inference_steps=first.steps,
        guidance_scale=first.guidance_scale,
        generator=[torch.Generator("cpu").manual_seed(asked.seed) for asked in group],
    ).images
    return images


def png(image: Image) -> bytes:
    """The image as a file, with Pillow's defaults as the service has them."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
