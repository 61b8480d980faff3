"""Keys: what the site's layer reads, at every position of a caption, on the pristine encoder."""

from typing import Any

import torch
from torch import Tensor, nn

from edits.errors import NonFinite, SiteUnknown
from edits.method.sites import Site, resolve


class _Reached(Exception):
    """Ends the forward pass at the site: what lies above it is not needed."""


@torch.no_grad()
def capture_keys(encoder: nn.Module, site: Site, ids: Tensor) -> Tensor:
    """Inputs of the site's layer for `ids` (captions, positions): (captions, positions, d_in).

    They are float64. Runs the embeddings and the layers up to the site only. Raises NonFinite, or
    SiteUnknown if the forward pass never reaches the layer.
    """
    layer = resolve(encoder, site)
    keys: list[Tensor] = []

    def stop(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        keys.append(arguments[0].detach())
        raise _Reached

    handle = layer.register_forward_pre_hook(stop)
    try:
        encoder(ids.to(layer.weight.device))
    except _Reached:
        pass
    finally:
        handle.remove()
    if not keys:
        raise SiteUnknown(f"the text encoder never runs the layer of site {site}")
    return finite(keys[0], site).double()


def finite(keys: Tensor, site: Site) -> Tensor:
    """The keys themselves. Raises NonFinite."""
    if not torch.isfinite(keys).all():
        raise NonFinite(f"the keys at site {site} contain NaN or infinity; check the model")
    return keys
