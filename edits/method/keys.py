"""Captured keys of one pristine model, kept so that a caption is run once only."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate, islice

import torch
from torch import Tensor

from edits.method.caption_keys import CaptionKeys, Reach, Run
from edits.method.captions import Caption, CaptionPair, caption_pairs, naming, preserve_captions
from edits.method.components import Components
from edits.method.rows import PairRows, behind, caption_rows, pair_rows
from edits.method.sites import Site
from edits.method.solver import basis
from edits.method.spec import EditSpec
from edits.method.tokens import CaptionTokenizer

_TOGETHER = 8  # edits whose captions are captured together
_BUDGET_BYTES = 512 * 2**20
PRESERVED_PADDING = 1.0  # all padding of a preserved caption weighs as one of its words


class KeyCache:
    """Keys by their source, and the second moment of captions that must not move. Thread-safe.

    What is kept has the bits that it would have had alone, so they do not depend on what was asked
    for before. The least recently used are dropped when all kept keys exceed `budget_bytes`.
    """

    def __init__(
        self, components: Components, ordinary: Sequence[str], *, budget_bytes: int = _BUDGET_BYTES
    ) -> None:
        self._components = components
        self._captions = CaptionKeys(components)
        self.ordinary = tuple(dict.fromkeys(ordinary))
        self._budget = budget_bytes
        self._kept: OrderedDict[object, tuple[Tensor, ...]] = OrderedDict()
        self._grams: dict[Site, Tensor] = {}
        self._empty: dict[Site, Tensor] = {}
        self._spanned: dict[Site, Tensor] = {}
        self._lock = threading.RLock()
        self.held_bytes = 0

    def rows(self, source: Site, spec: EditSpec) -> PairRows:
        """What the edit keys at layers that read `source`. Raises ConceptUntraceable, NonFinite."""

        def make() -> tuple[Tensor, ...]:
            pairs = self._pairs(source, spec)
            concepts, anchors = [pair.concept for pair in pairs], _anchors(pairs)
            identity = _anchor_identity(source, spec, anchors)
            if identity in self._kept or not self._captions.independent(source):
                (runs,) = self._runs(source, spec, concept=concepts)
            else:  # Two small passes cost half as much again as one.
                runs, others = self._runs(source, spec, concept=concepts, anchor=anchors)
                self._keep(identity, partial(_stacked, others))
            return self._pair_rows(source, spec, pairs, runs)

        keys, steps, ones, captured = self._keep(_identity(source, spec), make)
        return PairRows(keys, steps, ones, int(captured))

    def prepare(self, source: Site, specs: Sequence[EditSpec]) -> None:
        """Capture what these edits key together, if none of their bits depends on it. As `rows`."""
        with self._lock:
            if not self._captions.independent(source):
                return
            missing: dict[str, dict[object, EditSpec]] = {}
            for spec in specs:
                if (identity := _identity(source, spec)) not in self._kept and not spec.parity:
                    missing.setdefault(spec.tokens, {})[identity] = spec
            for alike in missing.values():
                together = list(alike.items())
                for start in range(0, len(together), _TOGETHER):
                    self._prepare(source, dict(together[start : start + _TOGETHER]))

    def _prepare(self, source: Site, specs: Mapping[object, EditSpec]) -> None:
        pairs = {identity: self._pairs(source, spec) for identity, spec in specs.items()}
        captions = [pair.concept for each in pairs.values() for pair in each]
        (found,) = self._runs(source, next(iter(specs.values())), concept=captions)
        runs = iter(found)
        for identity, spec in specs.items():
            own = list(islice(runs, len(pairs[identity])))
            self._keep(identity, partial(self._pair_rows, source, spec, pairs[identity], own))

    def empty(self, source: Site) -> Tensor:
        """Keys (positions, d_in) of the empty prompt: start-of-text and all positions behind it."""
        with self._lock:
            if source not in self._empty:
                self._empty[source] = self._captions.empty(source)
            return self._empty[source]

    def spanned(self, source: Site) -> Tensor:
        """Orthonormal rows (r, d_in) that span the keys of the empty prompt."""
        with self._lock:
            if source not in self._spanned:
                self._spanned[source] = basis(self.empty(source))
            return self._spanned[source]

    def preserved(self, source: Site, name: str, *, field: str = "spec.preserve") -> Tensor:
        """The keys (n, d_in) of a name that is to stay, each times the root of its weight."""
        return self._keep(
            ("preserved", source, name), lambda: self._name_rows(source, name, field)
        )[0].double()

    def ordinary_gram(self, source: Site, removed: Sequence[str]) -> Tensor:
        """sum_p p p^T (d_in, d_in) over the ordinary names, less those that name what is removed.

        The sum over all of them is made once per encoder and kept; names that a removed concept
        stands in are taken off it, so the cost of an edit does not grow with the ordinary names.
        """
        with self._lock:
            if source not in self._grams:
                gram = self._zero(source)
                for name in self.ordinary:
                    rows = self.preserved(source, name, field="ordinary_captions")
                    gram += rows.T @ rows
                self._grams[source] = gram
            gram = self._grams[source].clone()
        for name in naming(self.ordinary, removed):
            rows = self.preserved(source, name, field="ordinary_captions")
            gram -= rows.T @ rows
        return gram

    def ordinary_rows(self, source: Site) -> list[Tensor]:
        """What `preserved` answers for each ordinary name, in single precision."""
        return [
            self._keep(
                ("preserved", source, name),
                partial(self._name_rows, source, name, "ordinary_captions"),
            )[0]
            for name in self.ordinary
        ]

    def recall(self, source: Site, rows: Sequence[Tensor], gram: Tensor) -> None:
        """Take over `ordinary_rows` and the whole `ordinary_gram` of an earlier capture."""
        with self._lock:
            for name, part in zip(self.ordinary, rows, strict=True):
                self._keep(("preserved", source, name), partial(_alone, part))
            self._grams[source] = gram

    def _keep(self, identity: object, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        with self._lock:
            if identity in self._kept:
                self._kept.move_to_end(identity)
                return self._kept[identity]
            made = make()
            self._kept[identity] = made
            self.held_bytes += _size(made)
            while self.held_bytes > self._budget and len(self._kept) > 1:
                self.held_bytes -= _size(self._kept.popitem(last=False)[1])
            return made

    def _pairs(self, source: Site, spec: EditSpec) -> tuple[CaptionPair, ...]:
        return fitting(caption_pairs(spec), self._components.tokenizer(source))

    def _pair_rows(
        self, source: Site, spec: EditSpec, pairs: Sequence[CaptionPair], concepts: Sequence[Run]
    ) -> tuple[Tensor, ...]:
        # Edits share anchors: theirs are captured once for all of them.
        distinct = _anchors(pairs)
        (kept, counts) = self._keep(
            _anchor_identity(source, spec, distinct),
            lambda: _stacked(*self._runs(source, spec, anchor=distinct)),
        )
        lengths = dict(zip(distinct, counts.tolist(), strict=True))
        starts = dict(zip(distinct, accumulate(counts.tolist(), initial=0), strict=False))
        keys, wanted, weights = [], [], []
        for pair, run in zip(pairs, concepts, strict=True):
            start, last = starts[pair.anchor], lengths[pair.anchor] - 1
            places, shares = _places(spec, run.behind)
            # Aligned by distance from each last subject token; a longer anchor ends at the last
            # position.
            keys.append(run.keys[places])
            wanted += [start + min(place, last) for place in places]
            weights += shares
        stacked = torch.cat(keys)
        made = pair_rows(
            stacked, kept[wanted].double(), stacked.new_tensor(weights), merge=not spec.parity
        )
        return made.keys, made.steps, made.ones, torch.tensor(made.captured)

    def _runs(self, source: Site, spec: EditSpec, **captions: Sequence[Caption]) -> list[list[Run]]:
        reach: Reach = "all" if spec.parity else "subject" if spec.tokens == "last" else "near"
        fields = {f"spec.{name}": each for name, each in captions.items()}
        return self._captions.runs(source, fields, reach=reach)

    def _name_rows(self, source: Site, name: str, field: str) -> tuple[Tensor]:
        tokenize = self._components.tokenizer(source)
        bare, *longer = preserve_captions(name)
        fits = tokenize.fits(longer)
        captions = [bare, *(c for c, short in zip(longer, fits, strict=True) if short)]
        parts = []
        for keys, words in self._captions.texts(source, captions, field=field):
            rows, weights = caption_rows(keys, words, tokenize.positions, PRESERVED_PADDING)
            parts.append(weights.sqrt()[:, None] * rows)
        return (_stored(torch.cat(parts)),)

    def _zero(self, source: Site) -> Tensor:
        width = self.empty(source).shape[1]
        return self.empty(source).new_zeros(width, width)


def fitting(pairs: Sequence[CaptionPair], tokenizer: CaptionTokenizer) -> tuple[CaptionPair, ...]:
    """The pairs within what the encoder reads; the bare names always, so that they are refused."""
    fits = zip(
        tokenizer.fits([pair.concept for pair in pairs]),
        tokenizer.fits([pair.anchor for pair in pairs]),
        strict=True,
    )
    return tuple(
        pair
        for pair, short in zip(pairs, fits, strict=True)
        if all(short) or pair.concept.text == pair.concept.subject
    )


def _places(spec: EditSpec, count: int) -> tuple[list[int], list[float]]:
    """Distances from the last subject token that are keyed, of `count` behind, and weights."""
    if spec.tokens == "last":
        return [0], [1.0]
    if spec.parity:
        return list(range(count + 1)), [1.0] * (count + 1)
    places, shares = behind(count)
    return [0, *places], [1.0, *(spec.pad_weight * share for share in shares)]


def _identity(source: Site, spec: EditSpec) -> object:
    captions = (spec.names, spec.anchor, spec.kind, spec.parity)
    return source, captions, spec.tokens, spec.pad_weight


def _anchors(pairs: Sequence[CaptionPair]) -> tuple[Caption, ...]:
    return tuple(dict.fromkeys(pair.anchor for pair in pairs))


def _anchor_identity(source: Site, spec: EditSpec, anchors: tuple[Caption, ...]) -> object:
    return "anchor", source, anchors, spec.tokens, spec.parity


def _stacked(runs: Sequence[Run]) -> tuple[Tensor, Tensor]:
    keys = [run.keys for run in runs]
    return _stored(torch.cat(keys)), torch.tensor([len(each) for each in keys])


def _alone(tensor: Tensor) -> tuple[Tensor]:
    return (tensor,)


def _stored(keys: Tensor) -> Tensor:
    # Captured in the model's own precision: single precision holds all of it in half the space.
    return keys.float()


def _size(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
