"""Captured keys of one pristine encoder, kept so that a caption is run once only."""

import threading
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from edits.method.capture import capture_keys
from edits.method.captions import PRESERVE_TEMPLATES, Caption, fill, mentions
from edits.method.sites import Site
from edits.method.tokens import CaptionTokenizer, Tokens

_BATCH = 64


class KeyCache:
    """Keys by site and caption, and the Gram matrices of captions that must not move. Thread-safe."""

    def __init__(self, encoder: nn.Module, tokenizer: CaptionTokenizer, ordinary: Sequence[str]) -> None:
        self._encoder = encoder
        self._tokenizer = tokenizer
        self._ordinary = tuple(ordinary)
        self._keys: dict[tuple[Site, Caption], tuple[Tensor, int]] = {}
        self._grams: dict[tuple[Site, str], Tensor] = {}
        self._totals: dict[Site, Tensor] = {}
        self._empty: dict[Site, Tensor] = {}
        self._lock = threading.RLock()

    def of(self, site: Site, captions: Iterable[Caption]) -> list[tuple[Tensor, int]]:
        """Keys (positions, d_in) and the last subject token's position, for each caption."""
        wanted = list(captions)
        with self._lock:
            missing = [c for c in dict.fromkeys(wanted) if (site, c) not in self._keys]
            for start in range(0, len(missing), _BATCH):
                batch = missing[start : start + _BATCH]
                tokens: list[Tokens] = [self._tokenizer(caption) for caption in batch]
                keys = capture_keys(self._encoder, site, torch.stack([t.ids for t in tokens]))
                for caption, key, token in zip(batch, keys, tokens, strict=True):
                    self._keys[site, caption] = (key, token.last)
            return [self._keys[site, caption] for caption in wanted]

    def empty(self, site: Site) -> Tensor:
        """Keys (positions, d_in) of the empty prompt: start-of-text and every position behind it."""
        with self._lock:
            if site not in self._empty:
                ids = self._tokenizer.empty()
                self._empty[site] = capture_keys(self._encoder, site, ids[None])[0]
            return self._empty[site]

    def preserved_gram(self, site: Site, extra: Sequence[str], removed: Sequence[str]) -> Tensor:
        """sum_p p p^T (d_in, d_in) over the ordinary captions and `extra`, less those naming `removed`.

        The sum over all ordinary captions is made once per encoder; captions that name a removed concept
        are taken off it, so the cost of an edit does not grow with the ordinary captions.
        """
        with self._lock:
            if site not in self._totals:
                zero = torch.zeros_like(self.empty(site)[:1].T @ self.empty(site)[:1])
                self._totals[site] = sum((self._gram(site, text) for text in self._ordinary), zero)
            gram = self._totals[site].clone()
            for text in self._ordinary:
                if any(mentions(text, name) for name in removed):
                    gram -= self._gram(site, text)
            for text in dict.fromkeys(extra):
                if text not in self._ordinary:
                    gram += self._gram(site, text)
            return gram

    def _gram(self, site: Site, text: str) -> Tensor:
        if (site, text) not in self._grams:
            captions = [fill(template, text) for template in PRESERVE_TEMPLATES]
            gram = sum(keys.T @ keys for keys, _ in self.of(site, captions))
            assert isinstance(gram, Tensor)  # noqa: S101 - PRESERVE_TEMPLATES is not empty
            self._grams[site, text] = gram
        return self._grams[site, text]
