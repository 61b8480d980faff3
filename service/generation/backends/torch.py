"""The UNet and the VAE in PyTorch, as diffusers runs them."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["TorchBackend"]


class TorchBackend:
    """Eager PyTorch on the pipeline's own device."""

    name = "torch"

    def __init__(self, pipeline: Any) -> None:
        self._unet = pipeline.unet
        self._vae = pipeline.vae
        self.provider = str(pipeline.device)

    @torch.inference_mode()
    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        embeddings: Tensor,
        *,
        unet: nn.Module | None = None,
    ) -> Tensor:
        """The UNet's output, one timestep a row."""
        model = self._unet if unet is None else unet
        output: Tensor = model(
            latents, timesteps, encoder_hidden_states=embeddings, return_dict=False
        )[0]
        return output

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels in [-1, 1]."""
        vae = self._vae
        pixels: Tensor = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
        return pixels
