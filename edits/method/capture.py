"""Keys: what the site's layer reads, at every position of a caption, on the pristine encoder."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edits.errors import NonFinite, SiteUnknown
from edits.method.finite import is_finite
from edits.method.sites import Site, resolve

# What the first self-attention reads at a position depends on the token and the position alone.
_FIRST_PROJECTIONS = tuple(
    f"text_model.encoder.layers.0.self_attn.{name}_proj" for name in ("q", "k", "v")
)
_WHOLE_ROWS = 4  # a row's bits do not depend on its neighbours in batches of a multiple of this


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
        with _computed_once(encoder, site, ids := ids.to(layer.weight.device)):
            encoder(ids)
    except _Reached:
        pass
    finally:
        handle.remove()
    if not keys:
        raise SiteUnknown(f"the text encoder never runs the layer of site {site}")
    return finite(keys[0], site).double()


@contextmanager
def _computed_once(encoder: nn.Module, site: Site, ids: Tensor) -> Iterator[None]:
    """Let the first self-attention project each (token, position) of `ids` once.

    Captions of one edit share their templates and their padding: four of five positions are alike.
    """
    try:
        layers = [resolve(encoder, Site(site.component, path)) for path in _FIRST_PROJECTIONS]
    except SiteUnknown:
        yield
        return
    places = torch.arange(ids.shape[1], device=ids.device)
    kinds, which = torch.unique(ids * ids.shape[1] + places, return_inverse=True)
    order = torch.arange(ids.numel(), device=ids.device)
    first = torch.empty_like(kinds).scatter_reduce_(
        0, which.flatten(), order, "amin", include_self=False
    )
    first = torch.cat([first, first[:1].expand(-len(first) % _WHOLE_ROWS)])

    def shrink(_module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Tensor]:
        return (arguments[0].flatten(0, 1)[first],)

    def spread(_module: nn.Module, _arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        return output[which]

    handles = [layer.register_forward_pre_hook(shrink) for layer in layers]
    handles += [layer.register_forward_hook(spread) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def finite(keys: Tensor, site: Site) -> Tensor:
    """The keys themselves. Raises NonFinite."""
    if not is_finite(keys):
        raise NonFinite(f"the keys at site {site} contain NaN or infinity; check the model")
    return keys
