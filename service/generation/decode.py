"""Latents to a picture, through the pipeline's own VAE, safety checker and image processor."""

from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

__all__ = ["Decoder"]


class Decoder:
    """Decodes one image at a time. Not thread-safe: one thread owns the VAE."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Image:
        """The image of latents (1, channels, rows, columns); black where the checker says so."""
        vae = self._pipeline.vae
        pixels = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        pixels, flagged = self._pipeline.run_safety_checker(pixels, latents.device, latents.dtype)
        keep = [True] if flagged is None else [not flag for flag in flagged]
        picture: Image = self._pipeline.image_processor.postprocess(
            pixels, output_type="pil", do_denormalize=keep
        )[0]
        return picture
