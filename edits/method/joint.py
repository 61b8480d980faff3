"""All edits that read the same keys, solved at once: what every layer's delta is made of."""

import threading
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor, nn

from edits.errors import EditRefused
from edits.method.captions import naming
from edits.method.keys import KeyCache
from edits.method.moments import BucketedSums, pair_moments, scaled, second_moment
from edits.method.neighbours import Neighbours, moved
from edits.method.rows import PairRows
from edits.method.sites import Site
from edits.method.solver import respond, respond_to_moments
from edits.method.spec import EditSpec

# The ordinary names weigh together as so many, however long the list of a model is.
ORDINARY_NAMES = 64.0
_FEW = 8  # edits that are solved by their rows; more, by their sums
_REMEMBERED = 8192  # edits whose neighbours are kept


@dataclass(frozen=True)
class Joint:
    """One solve: `delta` turns it into the delta (d_out, d_in) of a layer that reads `source`."""

    source: Site
    specs: tuple[EditSpec, ...]
    neighbours: Mapping[str, tuple[str, ...]]  # kept still, by the edit's name
    left_out: frozenset[str]  # of what is to stay, since a name that is removed stands in it
    gram: Callable[[], Tensor]  # (d_in, d_in), second moment of what is preserved
    delta: Callable[[nn.Linear], Tensor]


class JointSolver:
    """Solves sets of edits on one pristine model; keeps what the next set shares. Thread-safe."""

    def __init__(self, keys: KeyCache, neighbours: Neighbours) -> None:
        self._keys = keys
        self._neighbours = neighbours
        self._sums = BucketedSums()
        self._moved: dict[tuple[Site, EditSpec], tuple[str, ...]] = {}
        self._lock = threading.RLock()

    def solve(self, source: Site, specs: tuple[EditSpec, ...]) -> Joint:
        """Solve `specs`, sorted, at all layers that read `source`. Raises EditRefused."""
        parity = any(spec.parity for spec in specs)
        if parity and len(specs) > 1:
            raise EditRefused(
                "an edit with `parity: true` reproduces the released code, which edits one "
                f"concept: it cannot be combined with {len(specs) - 1} others",
                param="spec.method.parity",
            )
        removed = [name for spec in specs for name in spec.names]
        kept = {} if parity else self._moved_neighbours(source, specs)
        named = {text for spec in specs for text in (*spec.preserve, *kept.get(spec.name, ()))}
        left_out = frozenset(naming(named, removed))
        preserved_gram = cache(lambda: self._preserved_gram(source, named - left_out, removed))
        joint = partial(Joint, source, specs, kept, left_out, preserved_gram)
        if parity:
            own = self._keys.rows(source, specs[0])
            responses = respond(own.keys.double(), ridge=specs[0].ridge)
            # Nothing is preserved; the report says what that does to what would be.
            return joint(lambda layer: _parity(layer, own, responses))
        gram = preserved_gram()
        # Each edit's objective is divided by its own ridge: with different ones every edit keeps
        # the trade it asked for. What an edit wants preserved adds up: many edits press harder on
        # what is to stay than one does, and need to hold it harder.
        share = sum(spec.preserve_weight / spec.ridge for spec in specs)
        # A delta that holds many edits is larger than one that holds one: with the same weight on
        # its size every edit would go less far, the more there are.
        ridge = len(specs) ** -0.5
        pinned = self._keys.spanned(source)
        still = share * gram if share > 0 else None
        if len(specs) <= _FEW:
            rows = [self._keys.rows(source, spec) for spec in specs]
            keys, steps = scaled(rows, [spec.ridge for spec in specs])
            responses = respond(keys, ridge=ridge, preserved_gram=still, pinned=pinned)
            return joint(lambda layer: (steps @ layer.weight.double().T).T @ responses)
        by_name = {spec.name: spec for spec in specs}

        def moments(names: Sequence[str]) -> tuple[Tensor, ...]:
            chosen = [by_name[name] for name in names]
            return pair_moments(
                [self._keys.rows(source, spec) for spec in chosen], [s.ridge for s in chosen]
            )

        own_gram, cross = self._sums.total(("edits", source), by_name, moments)
        step = respond_to_moments(own_gram, cross, ridge=ridge, preserved_gram=still, pinned=pinned)
        return joint(lambda layer: layer.weight.double() @ step)

    def _moved_neighbours(
        self, source: Site, specs: Sequence[EditSpec]
    ) -> dict[str, tuple[str, ...]]:
        """For each edit the neighbours that it would move, looked for once per edit."""
        with self._lock:
            fresh = [spec for spec in specs if (source, spec) not in self._moved]
            self._keys.prepare(source, fresh)
            for spec, names in self._neighbours.nearest(fresh).items():
                rows = self._keys.rows(source, spec)
                self._moved[source, spec] = moved(names, source, rows, spec.ridge, self._keys)
            found = {spec.name: self._moved[source, spec] for spec in specs}
            while len(self._moved) > _REMEMBERED:
                self._moved.pop(next(iter(self._moved)))
        return found

    def _preserved_gram(self, source: Site, named: Set[str], removed: Sequence[str]) -> Tensor:
        """The second moment of what is to stay: ordinary names, less the removed, and `named`."""
        ordinary = self._keys.ordinary
        gram = self._keys.ordinary_gram(source, removed)
        gram *= ORDINARY_NAMES / max(len(ordinary), 1)
        if not named:
            return gram

        def moments(names: Sequence[str]) -> tuple[Tensor, ...]:
            rows = torch.cat([self._keys.preserved(source, name) for name in names])
            return (second_moment(rows),)

        (moment,) = self._sums.total(("names", source), dict.fromkeys(named), moments)
        return gram + moment


def _parity(layer: nn.Linear, rows: PairRows, responses: Tensor) -> Tensor:
    """The delta of the released code: its values carry the bias, which the layer adds again.

    As there in single precision; what that cannot bear, the inverse, is behind `responses`.
    """
    residuals = torch.addmm(bias_rows(layer, rows), rows.steps, layer.weight.float().T)
    return residuals.T @ responses.float()


def bias_rows(layer: nn.Linear, rows: PairRows) -> Tensor:
    """What `parity` adds to the values of `rows`: the layer's bias (n, d_out)."""
    bias = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias
    return torch.outer(rows.ones, bias.to(rows.ones))
