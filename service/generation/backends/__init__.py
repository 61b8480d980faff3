"""What runs the UNet and the VAE: PyTorch, or ONNX Runtime."""

from service.generation.backends.backend import Backend
from service.generation.backends.torch import TorchBackend

__all__ = ["Backend", "TorchBackend"]
