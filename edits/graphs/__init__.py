"""UNet and VAE decoder of a pipeline as ONNX graphs: exported, named by a digest, kept in a cache.

The text encoder is not exported: edits change its weights, and it stays in torch.
"""

from edits.graphs.cache import Graphs, cached_graphs, read_graphs
from edits.graphs.export import VaeDecoder, graphs_digest, latent_unit

__all__ = [
    "Graphs",
    "VaeDecoder",
    "cached_graphs",
    "graphs_digest",
    "latent_unit",
    "read_graphs",
]
