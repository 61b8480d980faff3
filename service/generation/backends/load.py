"""The backend that the settings name, checked before it serves."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edits.graphs import cached_graphs, latent_unit
from service.errors import BackendMismatch, SettingsInvalid
from service.generation.backends.backend import Backend
from service.generation.backends.onnx import OnnxBackend
from service.generation.backends.torch import TorchBackend, embedding_shape
from service.settings import Settings

__all__ = ["BOUNDS", "check_against_torch", "load_backend"]

_log = logging.getLogger("quickfix.backends")

# Largest difference from torch's numbers, as a share of the largest of them (at least 1).
BOUNDS = {torch.float32: 5e-4, torch.float16: 5e-2}


def load_backend(pipeline: Any, settings: Settings) -> Backend:
    """The backend of `pipeline`; graphs that are not in the state directory are exported first.

    Raises SettingsInvalid, GraphsUnexportable, BackendUnavailable or BackendMismatch.
    """
    if settings.backend == "torch":
        for name in ("compile", "cuda_graphs"):
            if getattr(settings, name) and pipeline.unet.device.type != "cuda":
                raise SettingsInvalid(
                    f"{name} needs a GPU and there is none; leave it out",
                    param=f"QUICKFIX_{name.upper()}",
                )
        return TorchBackend(pipeline, compiled=settings.compile, cuda_graphs=settings.cuda_graphs)
    return _onnx(pipeline, settings.state_dir / "onnx", threads=settings.threads)


def _onnx(pipeline: Any, cache: Path, *, threads: int) -> OnnxBackend:
    graphs = cached_graphs(pipeline, cache)
    if graphs.replaced is not None:
        _log.warning("%s", graphs.replaced)
    if graphs.seconds:
        _log.info("exported onnx graphs=%s seconds=%.1f", graphs.digest[:12], graphs.seconds)
    backend = OnnxBackend(pipeline, graphs, threads=threads)
    difference = check_against_torch(backend, pipeline)
    _log.info("loaded onnx provider=%s difference=%.1e", backend.provider, difference)
    return backend


def check_against_torch(backend: Backend, pipeline: Any) -> float:
    """The largest difference from torch's numbers, relative to the largest of them.

    One row and three, two sizes, mixed timesteps, seeded. Raises BackendMismatch over the bound.
    """
    reference = TorchBackend(pipeline)
    unet = pipeline.unet
    bound = BOUNDS[unet.dtype]
    unit = latent_unit(unet)
    draw = torch.Generator().manual_seed(0)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw).to(dtype=unet.dtype, device=unet.device)

    largest = 0.0
    for rows, height, width in ((1, 2 * unit, 2 * unit), (3, 4 * unit, 3 * unit)):
        latents = noise(rows, int(unet.config.in_channels), height, width)
        timesteps = torch.tensor([999, 500, 1][:rows], device=unet.device)
        embeddings = noise(rows, *embedding_shape(pipeline))
        ours = backend.predict(latents, timesteps, embeddings), backend.decode(latents)
        with torch.backends.cudnn.flags(allow_tf32=False):
            theirs = reference.predict(latents, timesteps, embeddings), reference.decode(latents)
        for part, got, wanted in zip(("unet", "vae_decoder"), ours, theirs, strict=True):
            scale = max(1.0, float(wanted.abs().max()))
            difference = float((got.float() - wanted.float()).abs().max()) / scale
            if not difference <= bound:  # also when it is not a number
                raise BackendMismatch(
                    f"backend {backend.name} on {backend.provider}: {part} differs from torch by "
                    f"{difference:.1e} with {rows} rows of {height}x{width}, the bound "
                    f"is {bound:.0e}; export again with `quickfix onnx`, or use backend torch",
                    param="QUICKFIX_BACKEND",
                )
            largest = max(largest, difference)
    return largest
