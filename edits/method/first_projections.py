"""Queries, keys and values of the first self-attention, each made once.

What that layer reads at a position depends on the token and the position alone. Captions of one
edit share their templates and their padding: four of five positions are alike, and most of those
are alike in every edit.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from edits.errors import SiteUnknown
from edits.method.sites import Site, resolve

_PATHS = tuple(f"text_model.encoder.layers.0.self_attn.{name}_proj" for name in ("q", "k", "v"))
# Rows are projected in blocks of so many, filled up: a library may add up a row differently in a
# matrix of another size.
_BLOCK = 16


class _Made(Exception):
    """Ends the forward pass behind the last projection."""


class FirstProjections:
    """The projections of `tokens` at all `positions`, kept; those of other tokens, once a batch.

    Which are kept does not depend on what was captured before, so neither do the bits of a capture.
    An encoder whose first layer has another layout is run as it is. The encoder is one that nobody
    else runs: see `same_tensors`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        component: str,
        tokens: Sequence[int] = (),
        positions: int = 0,
    ) -> None:
        try:
            self._layers = [resolve(encoder, Site(component, path)) for path in _PATHS]
        except SiteUnknown:
            self._layers = []
        self._positions = positions
        self._tokens = torch.tensor(sorted(set(tokens)), dtype=torch.long)
        self._kept: list[Tensor] = []  # per layer (tokens * positions, width)
        if self._layers and len(self._tokens):
            self._tokens = self._tokens.to(self._layers[0].weight.device)
            self._kept = self._make(encoder)

    @property
    def apart(self) -> bool:
        """Whether this encoder's projections are made here, in blocks of one size."""
        return bool(self._layers)

    @contextmanager
    def once(self, ids: Tensor) -> Iterator[None]:
        """Let a pass over `ids` (captions, positions) project no (token, position) twice."""
        if not self._layers:
            yield
            return
        places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        kept, at = (found.flatten() for found in self._find(ids, places))
        other = (~kept).nonzero()[:, 0]
        kinds, which = torch.unique(
            (ids * ids.shape[1] + places).flatten()[other], return_inverse=True
        )
        first = torch.zeros_like(kinds).scatter_reduce_(0, which, other, "amin", include_self=False)
        first = torch.cat([first, first[:1].expand(-len(first) % _BLOCK)])

        def project(index: int, read: Tensor) -> Tensor:
            layer = self._layers[index]
            blocks = torch.split(read.flatten(0, 1)[first], _BLOCK)
            made = torch.cat([functional.linear(b, layer.weight, layer.bias) for b in blocks])
            whole = made[which]
            if self._kept:
                whole = self._kept[index][at].index_copy_(0, other, whole)
            return whole.view(*ids.shape, -1)

        for i, layer in enumerate(self._layers):
            layer.forward = partial(project, i)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for layer in self._layers:
                del layer.forward

    def _find(self, ids: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Which of `ids` are kept (captions, positions), and in which rows."""
        if not self._kept:
            return torch.zeros_like(ids, dtype=torch.bool), ids
        row = torch.searchsorted(self._tokens, ids).clamp(max=len(self._tokens) - 1)
        kept = (self._tokens[row] == ids) & (places < self._positions)
        return kept, torch.where(kept, row * self._positions + places, 0)

    @torch.no_grad()
    def _make(self, encoder: nn.Module) -> list[Tensor]:
        made: dict[int, Tensor] = {}

        def keep(index: int, output: Tensor) -> None:
            made[index] = output.flatten(0, 1)
            if len(made) == len(self._layers):
                raise _Made

        handles = [
            layer.register_forward_hook(lambda _module, _read, output, i=i: keep(i, output))
            for i, layer in enumerate(self._layers)
        ]
        try:
            encoder(self._tokens[:, None].repeat(1, self._positions))
        except _Made:
            pass
        finally:
            for handle in handles:
                handle.remove()
        return [made[i] for i in range(len(self._layers))]
