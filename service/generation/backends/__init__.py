"""What runs the UNet and the VAE decoder: torch, or graphs through onnxruntime."""

from service.generation.backends.backend import Backend
from service.generation.backends.load import load_backend
from service.generation.backends.torch import TorchBackend, embedding_shape

__all__ = ["Backend", "TorchBackend", "embedding_shape", "load_backend"]
