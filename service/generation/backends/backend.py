"""What a backend does, whatever runs it."""

from typing import Protocol

from torch import Tensor, nn

__all__ = ["Backend"]


class Backend(Protocol):
    """Runs the UNet and the VAE decoder.

    `predict` and `decode` may be called from two different threads, each from one only.
    Both raise RuntimeError when the device fails, out of memory among it.
    """

    name: str  # "torch" | "onnx"
    provider: str  # what it really runs on, read back: "cpu", "cuda:0", "CPUExecutionProvider"
    supports_edited_unet: bool  # whether `predict` takes another UNet than the pristine one

    def predict(
        self,
        latents: Tensor,
        timesteps: Tensor,
        embeddings: Tensor,
        *,
        unet: nn.Module | None = None,
    ) -> Tensor:
        """The UNet's output (rows, channels, h, w).

        latents: (rows, channels, h, w). timesteps: (rows,), one for each row. embeddings: (rows,
        positions, features). unet: an edited UNet in place of the pristine one.
        """

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (rows, 3, H, W) in [-1, 1], before the safety checker.

        latents: (rows, channels, h, w) as the scheduler leaves them.
        """
