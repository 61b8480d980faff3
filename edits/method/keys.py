"""Captured keys of one pristine encoder, kept so that a caption is run once only."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from edits.method.captions import Caption, mentions, preserve_captions
from edits.method.capture import capture_keys
from edits.method.sites import Site
from edits.method.tokens import CaptionTokenizer

_BATCH = 64
_BUDGET_BYTES = 256 * 2**20

Captured = list[tuple[Tensor, int]]


class KeyCache:
    """Keys by site and captions, and the Gram matrix of captions that must not move. Thread-safe.

    Captions that are asked for together are captured and kept together: the same request always
    runs the same batches, so its bits do not depend on what was asked for before. The least
    recently used are dropped when all kept keys exceed `budget_bytes`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        tokenizer: CaptionTokenizer,
        ordinary: Sequence[str],
        *,
        budget_bytes: int = _BUDGET_BYTES,
    ) -> None:
        self._encoder = encoder
        self._tokenizer = tokenizer
        self._ordinary = tuple(dict.fromkeys(ordinary))
        self._budget = budget_bytes
        self._kept: OrderedDict[tuple[Site, tuple[Caption, ...]], Captured] = OrderedDict()
        self._totals: dict[Site, Tensor] = {}
        self._empty: dict[Site, Tensor] = {}
        self._lock = threading.RLock()
        self.held_bytes = 0

    def of(
        self, site: Site, captions: Iterable[Caption], *, field: str = "spec.concept"
    ) -> Captured:
        """Keys (positions, d_in) and the last subject token's position, for each caption.

        `field` is the manifest's field that an error names. Raises ConceptUntraceable, NonFinite.
        """
        wanted = tuple(captions)
        unique = tuple(dict.fromkeys(wanted))
        with self._lock:
            captured = self._kept.get((site, unique))
            if captured is None:
                captured = self._capture(site, unique, field)
                self._kept[site, unique] = captured
                self.held_bytes += _size(captured)
                while self.held_bytes > self._budget:
                    self.held_bytes -= _size(self._kept.popitem(last=False)[1])
            else:
                self._kept.move_to_end((site, unique))
        by_caption = dict(zip(unique, captured, strict=True))
        return [by_caption[caption] for caption in wanted]

    def empty(self, site: Site) -> Tensor:
        """Keys (positions, d_in) of the empty prompt: start-of-text and all positions behind it."""
        with self._lock:
            if site not in self._empty:
                ids = self._tokenizer.empty()
                self._empty[site] = capture_keys(self._encoder, site, ids[None])[0]
            return self._empty[site]

    def preserved_gram(self, site: Site, extra: Sequence[str], removed: Sequence[str]) -> Tensor:
        """sum_p p p^T (d_in, d_in) over ordinary names and `extra`, less those naming `removed`.

        The sum over all ordinary names is made once per encoder, and only the sum is kept; names
        that a removed concept stands in are taken off it, so the cost of an edit does not grow with
        the ordinary names. A name that one edit preserves and another removes is removed.
        """
        with self._lock:
            if site not in self._totals:
                gram = self._zero(site)
                for text in self._ordinary:
                    gram += _gram(self._capture(site, preserve_captions(text), "ordinary_captions"))
                self._totals[site] = gram
            gram = self._totals[site].clone()
        for text in self._ordinary:
            if _names_any(text, removed):
                gram -= _gram(self.of(site, preserve_captions(text)))
        for text in dict.fromkeys(extra):
            if text not in self._ordinary and not _names_any(text, removed):
                gram += _gram(self.of(site, preserve_captions(text), field="spec.preserve"))
        return gram

    def _capture(self, site: Site, captions: tuple[Caption, ...], field: str) -> Captured:
        captured: Captured = []
        for start in range(0, len(captions), _BATCH):
            batch = captions[start : start + _BATCH]
            tokens = [self._tokenizer(caption, field=field) for caption in batch]
            keys = capture_keys(self._encoder, site, torch.stack([t.ids for t in tokens]))
            captured += [(key, token.last) for key, token in zip(keys, tokens, strict=True)]
        return captured

    def _zero(self, site: Site) -> Tensor:
        empty = self.empty(site)
        return empty.new_zeros(empty.shape[1], empty.shape[1])


def _gram(captured: Captured) -> Tensor:
    keys = torch.cat([key for key, _ in captured])
    return keys.T @ keys


def _names_any(text: str, names: Sequence[str]) -> bool:
    return any(mentions(text, name) for name in names)


def _size(captured: Captured) -> int:
    return sum(key.numel() * key.element_size() for key, _ in captured)
