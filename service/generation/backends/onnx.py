"""UNet and VAE decoder as ONNX graphs through onnxruntime."""

from typing import Any

import torch
from torch import Tensor, nn

from edits.errors import EditRefused
from edits.graphs import Graphs
from service.generation.backends.session import BoundSession

__all__ = ["OnnxBackend"]

# Without any each of the UNet's hundreds of operations wakes a thread; onnxruntime's own 1000 keep
# cores from the decoder and from torch (docs/adr/0011).
_SPIN_MICROSECONDS = 100


class OnnxBackend:
    """Rows, h and w are free; an edited UNet cannot run, since a graph holds its weights.

    Raises BackendUnavailable if the graphs do not run on the pipeline's device.
    """

    name = "onnx"
    supports_edited_unet = False

    def __init__(self, pipeline: Any, graphs: Graphs, *, threads: int) -> None:
        unet = pipeline.unet
        self._dtype: torch.dtype = unet.dtype
        self._noise_channels = int(unet.config.out_channels)
        self._pixels_of_latent = int(pipeline.vae_scale_factor)
        self._unet = BoundSession(
            graphs.unet,
            device=unet.device,
            threads=threads,
            spin_microseconds=_SPIN_MICROSECONDS,
        )
        self._decoder = BoundSession(graphs.vae_decoder, device=unet.device, threads=threads)
        self.provider = self._unet.provider

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        embeddings: Tensor,
        *,
        unet: nn.Module | None = None,
    ) -> Tensor:
        """The UNet's output (rows, channels, h, w). Raises EditRefused for an edited UNet."""
        if unet is not None:
            raise EditRefused("backend onnx runs the pristine UNet only; use backend torch")
        rows, _, height, width = latents.shape
        return self._unet.run(
            {
                "latents": latents.to(self._dtype),
                "timesteps": timesteps.to(torch.float32),
                "embeddings": embeddings.to(self._dtype),
            },
            latents.new_empty((rows, self._noise_channels, height, width), dtype=self._dtype),
        )

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (rows, 3, H, W) in [-1, 1]."""
        rows, _, height, width = latents.shape
        scale = self._pixels_of_latent
        return self._decoder.run(
            {"latents": latents.to(self._dtype)},
            latents.new_empty((rows, 3, height * scale, width * scale), dtype=self._dtype),
        )
