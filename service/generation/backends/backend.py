"""What runs the UNet and the VAE."""

from typing import Protocol

from torch import Tensor, nn

__all__ = ["Backend"]


class Backend(Protocol):
    """Runs the UNet and the VAE decoder.

    `predict` and `decode` may be called from two different threads, each from one only.
    """

    name: str  # "torch" or "onnx"
    provider: str  # what it really runs on, read back: "cpu", "cuda:0", "CPUExecutionProvider"

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        embeddings: Tensor,
        *,
        unet: nn.Module | None = None,
    ) -> Tensor:
        """The UNet's output (rows, channels, h, w).

        For latents (rows, channels, h, w), one timestep a row (rows,) and embeddings
        (rows, positions, features). `unet` is an edited one in place of the pristine one.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (rows, 3, H, W) in [-1, 1], before the safety checker.

        Of latents (rows, channels, h, w) as a scheduler leaves them.
        """
