"""Keys: what the site's layer reads, at every position of a caption, on the pristine encoder."""

from typing import Any

import torch
from torch import Tensor, nn

from edits.errors import NonFinite, SiteUnknown
from edits.method.finite import is_finite
from edits.method.first_projections import FirstProjections
from edits.method.sites import Site, resolve


class _Reached(Exception):
    """Ends the forward pass at the site: what lies above it is not needed."""


@torch.no_grad()
def capture_keys(
    encoder: nn.Module, site: Site, ids: Tensor, projections: FirstProjections | None = None
) -> Tensor:
    """Inputs of the site's layer for `ids` (captions, positions): (captions, positions, d_in).

    They are float64. Runs the embeddings and the layers up to the site only; `projections` of this
    encoder spare some of it. Raises NonFinite, or SiteUnknown if the forward pass never reaches the
    layer, or if the layer reads one vector of a caption instead of its positions.
    """
    layer = resolve(encoder, site)
    ids = ids.to(layer.weight.device).contiguous()
    keys: list[Tensor] = []

    def stop(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        keys.append(arguments[0].detach())
        raise _Reached

    handle = layer.register_forward_pre_hook(stop)
    try:
        with (projections or FirstProjections(encoder, site.component)).once(ids):
            encoder(ids)
    except _Reached:
        pass
    finally:
        handle.remove()
    if not keys:
        raise SiteUnknown(f"the text encoder never runs the layer of site {site}")
    if keys[0].ndim != 3:
        raise SiteUnknown(
            f"the layer of site {site} reads one vector of a whole caption, not its positions; "
            "name a layer inside the encoder, such as "
            "'text_model.encoder.layers.0.self_attn.out_proj'",
            param="spec.method.sites",
        )
    return finite(keys[0], site).double()


def finite(keys: Tensor, site: Site) -> Tensor:
    """The keys themselves. Raises NonFinite."""
    if not is_finite(keys):
        raise NonFinite(f"the keys at site {site} contain NaN or infinity; check the model")
    return keys
