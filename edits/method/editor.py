"""From edits to weights: all edits of a site are solved together, always from the pristine weight.

Therefore the order of edits does not matter, and an edit that is taken out leaves no trace.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from edits.errors import EditRefused, NonFinite
from edits.method.captions import fill, naming
from edits.method.components import Components, same_tensors
from edits.method.fingerprint import model_fingerprint, weights_digest
from edits.method.keys import KeyCache
from edits.method.moments import BucketedSums, pair_moments, scaled
from edits.method.neighbours import Neighbours, moved
from edits.method.pinned import PinnedLinear
from edits.method.report import EditReport, drift, gram_drift, residual
from edits.method.rows import PairRows
from edits.method.sites import Site, expand, resolve
from edits.method.solver import basis, respond, respond_to_moments
from edits.method.spec import EditSpec

# The ordinary names weigh together as so many, however long the list of a model is.
ORDINARY_NAMES = 64.0
_FEW = 8  # edits that are solved by their rows; more, by their sums
_REMEMBERED = 8192  # edits whose neighbours and checks are kept


@dataclass(frozen=True)
class Composition:
    """The weights of a set of edits: `digest` names their bytes."""

    weights: Mapping[Site, Tensor]
    digest: str
    report: Callable[[str], tuple[EditReport, ...]]  # of one edit, by its name
    names: tuple[str, ...]
    pinned: Mapping[Site, Tensor]  # (r, d_in) for each site: the span that it leaves still

    @cached_property
    def reports(self) -> tuple[EditReport, ...]:
        """One report per edit and site."""
        return tuple(report for name in self.names for report in self.report(name))


@dataclass(frozen=True)
class _Joint:
    """What is solved at one source for one set of edits, to be turned into each layer's delta."""

    source: Site
    specs: tuple[EditSpec, ...]
    kept: Mapping[str, tuple[str, ...]]  # neighbours by the edit's name
    gram: Tensor  # second moment of what is preserved
    delta: Callable[[nn.Linear], Tensor]


class Editor:
    """One pristine pipeline, and what has been captured on it. Thread-safe.

    `pipeline` is anything with the attributes of a diffusers pipeline. It is only read: `apply`
    answers other modules, which share with its own what no edit changes. `ordinary` are names of
    everyday concepts: their keys are kept still, and from them each edit's neighbours are chosen.
    """

    def __init__(self, pipeline: Any, *, ordinary: Sequence[str] = ()) -> None:
        self.components = Components(pipeline)
        self.neighbours = Neighbours(self.components, tuple(dict.fromkeys(ordinary)))
        self._keys = KeyCache(self.components, ordinary)
        self._sums = BucketedSums()
        self._moved: dict[tuple[Site, EditSpec], tuple[str, ...]] = {}
        self._checked: dict[EditSpec, None] = {}
        self._expanded: dict[tuple[Site, ...], tuple[Site, ...]] = {}
        self._lock = threading.RLock()
        self.fingerprint = model_fingerprint(self.components)

    def check(self, spec: EditSpec) -> None:
        """Raise the EditRefused subclass that says why this model cannot carry `spec`."""
        if spec in self._checked:
            return
        for source in {self.components.source(site) for site in self.sites(spec)}:
            tokenize = self.components.tokenizer(source)
            tokenize([fill("{x}", spec.concept)], field="spec.concept")
            tokenize([fill("{x}", alias) for alias in spec.aliases], field="spec.aliases")
            tokenize([fill("{x}", spec.anchor)], field="spec.anchor")
            tokenize([fill("{x}", text) for text in spec.preserve], field="spec.preserve")
        with self._lock:
            self._checked[spec] = None
            while len(self._checked) > _REMEMBERED:
                self._checked.pop(next(iter(self._checked)))

    def sites(self, spec: EditSpec) -> tuple[Site, ...]:
        """The layers of this model that `spec` edits. Raises SiteUnknown."""
        with self._lock:
            if spec.sites not in self._expanded:
                found = expand(spec.sites, self.components.modules)
                for site in found:
                    self.components.source(site)
                self._expanded[spec.sites] = found
            return self._expanded[spec.sites]

    def warm(self, sites: Sequence[Site]) -> None:
        """Capture the ordinary captions now, so that the first edit does not wait for them."""
        for site in expand(sites, self.components.modules):
            self._keys.ordinary_gram(self.components.source(site), ())
        self.neighbours.warm()

    @torch.no_grad()
    def compose(self, specs: Sequence[EditSpec]) -> Composition:
        """Solve all edits of every site together. Changes nothing. Raises EditRefused."""
        started = time.perf_counter()
        by_site: dict[Site, list[EditSpec]] = {}
        for spec in sorted(specs, key=lambda spec: (spec.name, repr(spec))):
            for site in self.sites(spec):
                by_site.setdefault(site, []).append(spec)
        joints: dict[tuple[Site, tuple[EditSpec, ...]], _Joint] = {}
        solved: dict[Site, _Joint] = {}
        weights: dict[Site, Tensor] = {}
        pinned: dict[Site, Tensor] = {}
        for site, mine in sorted(by_site.items()):
            source = self.components.source(site)
            key = (source, tuple(mine))
            if key not in joints:
                joints[key] = self._joint(*key)
            solved[site] = joints[key]
            weights[site] = self._weight(site, joints[key])
            if not mine[0].parity:
                pinned[site] = basis(self._keys.empty(source))
        seconds = time.perf_counter() - started
        names = tuple(dict.fromkeys(spec.name for spec in sorted(specs, key=lambda s: s.name)))

        def report(name: str) -> tuple[EditReport, ...]:
            return tuple(
                self._report(site, joint, spec, weights[site], seconds, pinned.get(site))
                for site, joint in solved.items()
                for spec in joint.specs
                if spec.name == name
            )

        return Composition(weights, weights_digest(weights), report, names, pinned)

    def apply(self, composition: Composition) -> dict[str, nn.Module]:
        """The edited components by name; they share every unedited tensor with the pristine ones.

        A component without edits is not among them.
        """
        edited: dict[str, nn.Module] = {}
        for site, weight in composition.weights.items():
            if site.component not in edited:
                edited[site.component] = same_tensors(self.components.modules[site.component])
            module = edited[site.component]
            layer = resolve(module, site)
            _replace(module, layer, _edited_layer(layer, weight, composition.pinned.get(site)))
        return {name: module.eval() for name, module in edited.items()}

    def _joint(self, source: Site, specs: tuple[EditSpec, ...]) -> _Joint:
        parity = any(spec.parity for spec in specs)
        if parity and len(specs) > 1:
            raise EditRefused(
                "an edit with `parity: true` reproduces the released code, which edits one "
                f"concept: it cannot be combined with {len(specs) - 1} others",
                param="spec.method.parity",
            )
        kept = {} if parity else self._moved_neighbours(source, specs)
        gram = self._preserved_gram(source, specs, kept)
        if parity:
            own = self._keys.rows(source, specs[0])
            responses = respond(own.keys.double(), ridge=specs[0].ridge)
            return _Joint(source, specs, kept, gram, lambda layer: _parity(layer, own, responses))
        # Each edit's objective is divided by its own ridge: with different ones every edit keeps
        # the trade it asked for. What an edit wants preserved adds up: many edits press harder on
        # what is to stay than one does, and need to hold it harder.
        share = sum(spec.preserve_weight / spec.ridge for spec in specs)
        spanned = basis(self._keys.empty(source))
        projector = torch.eye(spanned.shape[1], dtype=torch.float64, device=spanned.device)
        projector -= spanned.T @ spanned
        still = share * gram if share > 0 else None
        if len(specs) <= _FEW:
            rows = [self._keys.rows(source, spec) for spec in specs]
            keys, steps = scaled(rows, [spec.ridge for spec in specs])
            responses = respond(keys, ridge=1.0, preserved_gram=still, projector=projector)
            return _Joint(
                source,
                specs,
                kept,
                gram,
                lambda layer: (steps @ layer.weight.double().T).T @ responses,
            )
        by_name = {spec.name: spec for spec in specs}

        def moments(names: Sequence[str]) -> tuple[Tensor, ...]:
            chosen = [by_name[name] for name in names]
            return pair_moments(
                [self._keys.rows(source, spec) for spec in chosen], [s.ridge for s in chosen]
            )

        own_gram, cross = self._sums.total(("edits", source), by_name, moments)
        step = respond_to_moments(
            own_gram, cross, ridge=1.0, preserved_gram=still, projector=projector
        )
        return _Joint(source, specs, kept, gram, lambda layer: layer.weight.double() @ step)

    def _moved_neighbours(
        self, source: Site, specs: Sequence[EditSpec]
    ) -> dict[str, tuple[str, ...]]:
        """For each edit the neighbours that it would move, looked for once per edit."""
        with self._lock:
            fresh = [spec for spec in specs if (source, spec) not in self._moved]
            for spec, names in self.neighbours.nearest(fresh).items():
                rows = self._keys.rows(source, spec)
                self._moved[source, spec] = moved(names, source, rows, spec.ridge, self._keys)
            found = {spec.name: self._moved[source, spec] for spec in specs}
            while len(self._moved) > _REMEMBERED:
                self._moved.pop(next(iter(self._moved)))
        return found

    def _preserved_gram(
        self, source: Site, specs: Sequence[EditSpec], kept: Mapping[str, tuple[str, ...]]
    ) -> Tensor:
        """The second moment of what is to stay; a name that any edit removes does not."""
        removed = [name for spec in specs for name in spec.names]
        ordinary = self._keys.ordinary
        gram = self._keys.ordinary_gram(source, removed)
        gram *= ORDINARY_NAMES / max(len(ordinary), 1)
        wanted = {text for spec in specs for text in (*spec.preserve, *kept.get(spec.name, ()))}
        wanted -= set(naming(wanted, removed))
        if not wanted:
            return gram

        def moments(names: Sequence[str]) -> tuple[Tensor, ...]:
            rows = torch.cat([self._keys.preserved(source, name) for name in names])
            return (rows.T @ rows,)

        (named,) = self._sums.total(("names", source), dict.fromkeys(wanted), moments)
        return gram + named

    def _weight(self, site: Site, joint: _Joint) -> Tensor:
        layer = self.components.layer(site)
        if not all(torch.isfinite(tensor).all() for tensor in layer.parameters()):
            raise NonFinite(f"the pristine layer of site {site} contains NaN or infinity")
        edited = (layer.weight.double() + joint.delta(layer)).to(layer.weight.dtype)
        if not torch.isfinite(edited).all():
            raise NonFinite(
                f"the edited weight of site {site} exceeds {layer.weight.dtype}; raise the ridge",
                param="spec.method.ridge",
            )
        return edited

    @torch.no_grad()
    def _report(
        self,
        site: Site,
        joint: _Joint,
        spec: EditSpec,
        weight: Tensor,
        seconds: float,
        spanned: Tensor | None,
    ) -> EditReport:
        layer = self.components.layer(site)
        pristine = layer.weight.double()
        rows = self._keys.rows(joint.source, spec)
        empty = self._keys.empty(joint.source).to(layer.weight.dtype)
        extra = _bias_rows(layer, rows) if spec.parity else None
        return EditReport(
            name=spec.name,
            site=site,
            rows=rows.captured,
            residual=residual(weight.double(), pristine, rows, extra),
            preserve_drift=gram_drift(weight.double() - pristine, pristine, joint.gram),
            empty_prompt_drift=drift(layer(empty), _edited_layer(layer, weight, spanned)(empty)),
            neighbours=joint.kept.get(spec.name, ()),
            seconds=seconds,
        )


def _edited_layer(layer: nn.Linear, weight: Tensor, spanned: Tensor | None) -> nn.Linear:
    if spanned is None:
        spanned = weight.new_zeros(0, layer.in_features)
    return PinnedLinear(layer, weight, spanned)


def _replace(module: nn.Module, old: nn.Module, new: nn.Module) -> None:
    path = next(name for name, child in module.named_modules() if child is old)
    parent, _, leaf = path.rpartition(".")
    setattr(module.get_submodule(parent), leaf, new)


def _parity(layer: nn.Linear, rows: PairRows, responses: Tensor) -> Tensor:
    """The delta of the released code: its values carry the bias, which the layer adds again."""
    residuals = rows.steps.double() @ layer.weight.double().T + _bias_rows(layer, rows)
    return residuals.T @ responses


def _bias_rows(layer: nn.Linear, rows: PairRows) -> Tensor:
    bias = layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias
    return torch.outer(rows.ones.double(), bias.double())
