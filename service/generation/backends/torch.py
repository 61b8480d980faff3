"""The pipeline's own modules, run eagerly or, on a GPU, compiled."""

from typing import Any

import torch
from torch import Tensor, nn

from edits.graphs import VaeDecoder

__all__ = ["TorchBackend"]


class TorchBackend:
    """Convolutions in channels-last layout: the same numbers up to rounding, in less time.

    `compiled` runs the pristine UNet through torch.compile; an edited one always runs eagerly.
    """

    name = "torch"
    supports_edited_unet = True

    def __init__(self, pipeline: Any, *, compiled: bool = False) -> None:
        # Measured on CPU with benchmarks/onnx_step.py (docs/adr/0011): never slower, from 1 row to
        # 32. On a GPU it is diffusers' own advice for half precision; not measured here.
        self._pristine: nn.Module = pipeline.unet.to(memory_format=torch.channels_last)
        self._decoder = VaeDecoder(pipeline.vae.to(memory_format=torch.channels_last))
        # Not run by the tests: it needs a GPU (service/settings.py refuses it elsewhere).
        self._unet: Any = (
            torch.compile(self._pristine, dynamic=True) if compiled else self._pristine
        )
        self._device: torch.device = pipeline.unet.device
        self.provider = str(self._device)

    @torch.inference_mode()
    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        embeddings: Tensor,
        *,
        unet: nn.Module | None = None,
    ) -> Tensor:
        """The UNet's output (rows, channels, h, w)."""
        run = self._unet if unet is None else unet
        latents = latents.contiguous(memory_format=torch.channels_last)
        noise: Tensor = run(
            latents, timesteps, encoder_hidden_states=embeddings, return_dict=False
        )[0]
        return self._finished(noise.contiguous())

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (rows, 3, H, W) in [-1, 1]."""
        pixels: Tensor = self._decoder(latents.contiguous(memory_format=torch.channels_last))
        return self._finished(pixels.contiguous())

    def _finished(self, result: Tensor) -> Tensor:
        """What was computed, once it is: a step's time and its failures are its own."""
        if self._device.type == "cuda":
            # Not run by the tests: it needs a GPU. Else the next call that waits would have both.
            torch.cuda.current_stream(self._device).synchronize()
        return result
