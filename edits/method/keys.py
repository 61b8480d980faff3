"""Captured keys of one pristine model, kept so that a caption is run once only."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from edits.method.captions import (
    Caption,
    CaptionPair,
    caption_pairs,
    frames,
    naming,
    preserve_captions,
)
from edits.method.capture import capture_keys, finite
from edits.method.components import PROMPT, Components, same_tensors
from edits.method.first_projections import FirstProjections
from edits.method.rows import REACH, PairRows, behind, caption_rows, pair_rows
from edits.method.sites import Site
from edits.method.solver import basis
from edits.method.spec import EditSpec
from edits.method.tokens import CaptionTokenizer, Tokens

_BATCH = 64
_FEWEST = 8  # captions that are worth a batch of their own
_BUDGET_BYTES = 512 * 2**20
PRESERVED_PADDING = 1.0  # all padding of a preserved caption weighs as one of its words


@dataclass(frozen=True)
class _Run:
    """Keys (n, d_in) from a caption's last subject token on; `behind` positions follow that one."""

    keys: Tensor
    behind: int


class KeyCache:
    """Keys by their source, and the second moment of captions that must not move. Thread-safe.

    What is asked for together is captured and kept together: the same request always runs the same
    batches, so its bits do not depend on what was asked for before. The least recently used are
    dropped when all kept keys exceed `budget_bytes`.
    """

    def __init__(
        self, components: Components, ordinary: Sequence[str], *, budget_bytes: int = _BUDGET_BYTES
    ) -> None:
        self._components = components
        # Captures hook the module that they run and stop it half way: on a twin, since the pristine
        # module may be serving prompts, or be copied, in another thread.
        self._twins = {n: same_tensors(e.module).eval() for n, e in components.encoders.items()}
        self.ordinary = tuple(dict.fromkeys(ordinary))
        self._budget = budget_bytes
        self._kept: OrderedDict[object, tuple[Tensor, ...]] = OrderedDict()
        self._grams: dict[Site, Tensor] = {}
        self._empty: dict[Site, Tensor] = {}
        self._spanned: dict[Site, Tensor] = {}
        self._projections: dict[str, FirstProjections] = {}
        self._lock = threading.RLock()
        self.held_bytes = 0

    def rows(self, source: Site, spec: EditSpec) -> PairRows:
        """What the edit keys at layers that read `source`. Raises ConceptUntraceable, NonFinite."""
        captions = (spec.names, spec.anchor, spec.kind, spec.parity)
        identity = (source, captions, spec.tokens, spec.pad_weight)
        keys, steps, ones, captured = self._keep(identity, lambda: self._pair_rows(source, spec))
        return PairRows(keys, steps, ones, int(captured))

    def empty(self, source: Site) -> Tensor:
        """Keys (positions, d_in) of the empty prompt: start-of-text and all positions behind it."""
        with self._lock:
            if source not in self._empty:
                if source == PROMPT:
                    self._empty[source] = finite(self._components.embed([""])[0], source)
                else:
                    ids = self._components.tokenizer(source).empty()
                    self._empty[source] = self._capture(source, ids[None])[0]
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

    def _pair_rows(self, source: Site, spec: EditSpec) -> tuple[Tensor, ...]:
        tokenize = self._components.tokenizer(source)
        pairs = fitting(caption_pairs(spec), tokenize)
        concepts = self._runs(source, spec, [pair.concept for pair in pairs], "spec.concept")
        # Edits share anchors: theirs are captured once for all of them.
        distinct = tuple(dict.fromkeys(pair.anchor for pair in pairs))
        (kept, counts) = self._keep(
            ("anchor", source, distinct, spec.tokens, spec.parity),
            lambda: _stacked([r.keys for r in self._runs(source, spec, distinct, "spec.anchor")]),
        )
        runs = torch.split(kept.double(), counts.tolist())
        anchors = dict(zip(distinct, runs, strict=True))
        keys, wanted, weights = [], [], []
        for pair, run in zip(pairs, concepts, strict=True):
            target = anchors[pair.anchor]
            places, shares = _places(spec, run.behind)
            # Aligned by distance from each last subject token; a longer anchor ends at the last
            # position.
            keys.append(run.keys[places])
            wanted.append(target[torch.tensor(places).clamp(max=len(target) - 1)])
            weights += shares
        stacked = torch.cat(keys)
        made = pair_rows(
            stacked, torch.cat(wanted), stacked.new_tensor(weights), merge=not spec.parity
        )
        return made.keys, made.steps, made.ones, torch.tensor(made.captured)

    def _runs(
        self, source: Site, spec: EditSpec, captions: Sequence[Caption], field: str
    ) -> list[_Run]:
        """For each caption its keys from the last subject token on, as far as they are wanted."""
        tokenize = self._components.tokenizer(source)
        tokens = tokenize(captions, field=field)
        behind_last = [tokenize.positions - 1 - t.last for t in tokens]
        if spec.tokens == "last" and source != PROMPT and not spec.parity:
            runs = list(self._last(source, tokens)[:, None])
        else:
            whole = self._whole(source, captions, tokens, reach=None if spec.parity else REACH)
            runs = [keys[t.last :] for keys, t in zip(whole, tokens, strict=True)]
        return [_Run(run, count) for run, count in zip(runs, behind_last, strict=True)]

    def _name_rows(self, source: Site, name: str, field: str) -> tuple[Tensor]:
        tokenize = self._components.tokenizer(source)
        bare, *longer = preserve_captions(name)
        fits = tokenize.fits(longer)
        captions = [bare, *(c for c, short in zip(longer, fits, strict=True) if short)]
        tokens = tokenize(captions, field=field)
        parts = []
        whole = self._whole(source, captions, tokens, reach=REACH)
        for keys, token in zip(whole, tokens, strict=True):
            rows, weights = caption_rows(
                keys, len(token.ids), tokenize.positions, PRESERVED_PADDING
            )
            parts.append(weights.sqrt()[:, None] * rows)
        return (_stored(torch.cat(parts)),)

    def _last(self, source: Site, tokens: Sequence[Tokens]) -> Tensor:
        """Keys (captions, d_in) at the last subject tokens."""
        # Under the causal mask nothing behind the subject counts, and equal beginnings are one.
        prefixes = list(dict.fromkeys(t.prefix for t in tokens))
        longest = max(map(len, prefixes))
        ids = torch.tensor([[*p, *(p[-1],) * (longest - len(p))] for p in prefixes])
        captured = self._capture(source, ids)
        found = {p: captured[i, len(p) - 1] for i, p in enumerate(prefixes)}
        return torch.stack([found[t.prefix] for t in tokens])

    def _whole(
        self,
        source: Site,
        captions: Sequence[Caption],
        tokens: Sequence[Tokens],
        *,
        reach: int | None,
    ) -> list[Tensor]:
        """Keys (positions, d_in) of each caption as the pipeline pads it, at least as far as
        `reach` behind its end-of-text; None: all.
        """
        if source == PROMPT:
            parts = [captions[i : i + _BATCH] for i in range(0, len(captions), _BATCH)]
            embedded = [self._components.embed([c.text for c in part]) for part in parts]
            return list(finite(torch.cat(embedded), source).unbind())
        # Short captions apart from long ones: a batch is as long as its longest.
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i].ids))
        size = min(_BATCH, max(_FEWEST, -(-len(order) // 2)))
        whole: dict[int, Tensor] = {}
        for start in range(0, len(order), size):
            places = order[start : start + size]
            batch = [tokens[i] for i in places]
            ids = self._components.tokenizer(source).padded(batch)
            if reach is not None:
                ids = ids[:, : max(len(t.ids) for t in batch) + reach]
            whole.update(zip(places, self._capture(source, ids).unbind(), strict=True))
        return [whole[i] for i in range(len(tokens))]

    def _capture(self, source: Site, ids: Tensor) -> Tensor:
        twin, name = self._twins[source.component], source.component
        with self._lock:
            if name not in self._projections:
                tokenize = self._components.encoders[name].tokenizer
                stood = torch.unique(tokenize.padded(tokenize(frames()))).tolist()
                self._projections[name] = FirstProjections(twin, name, stood, tokenize.positions)
        return capture_keys(twin, source, ids, self._projections[name])

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


def _stacked(runs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    return _stored(torch.cat(list(runs))), torch.tensor([len(run) for run in runs])


def _alone(tensor: Tensor) -> tuple[Tensor]:
    return (tensor,)


def _stored(keys: Tensor) -> Tensor:
    # Captured in the model's own precision: single precision holds all of it in half the space.
    return keys.float()


def _size(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
