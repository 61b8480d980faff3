"""Keys of captions: what a layer reads from the last subject token on, on the pristine model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch
from torch import Tensor

from edits.method.captions import Caption, frames
from edits.method.capture import capture_keys, finite
from edits.method.components import PROMPT, Components, same_tensors
from edits.method.first_projections import FirstProjections
from edits.method.rows import REACH
from edits.method.sites import QUICKFIX, Site
from edits.method.tokens import Tokens

_BATCH = 32
_LENGTHS = 8  # rows of ids are as long as the next multiple of it

Reach = Literal["subject", "near", "all"]  # the last subject token, REACH behind the text, all


@dataclass(frozen=True)
class Run:
    """Keys (n, d_in) from a caption's last subject token on; `behind` positions follow that one."""

    keys: Tensor
    behind: int


class CaptionKeys:
    """Captures captions on one model. Not thread-safe: its user holds a lock.

    Captions go through the encoder in batches of equal length. The length is the caption's own
    matter; where nothing but the first attention lies below the layer, whose projections are made
    in blocks of one size (`FirstProjections`), a key's bits do not depend on its company. At other
    layers they may: the same captions asked for together have the same bits.
    """

    def __init__(self, components: Components) -> None:
        self._components = components
        # Captures hook the module that they run and stop it half way: on a twin, since the pristine
        # module may be serving prompts, or be copied, in another thread.
        self._twins = {n: same_tensors(e.module).eval() for n, e in components.encoders.items()}
        self._projections: dict[str, FirstProjections] = {}

    def independent(self, source: Site) -> bool:
        """Whether a key has the same bits whatever it is captured with."""
        if source.path != QUICKFIX.path:
            return False
        return self._kept_projections(source.component).apart

    def empty(self, source: Site) -> Tensor:
        """Keys (positions, d_in) of the empty prompt: start-of-text and all positions behind it."""
        if source == PROMPT:
            return finite(self._components.embed([""])[0], source)
        ids = self._components.tokenizer(source).empty()
        return self._captured(source, [tuple(ids.tolist())])[0]

    def runs(
        self, source: Site, fields: Mapping[str, Sequence[Caption]], *, reach: Reach
    ) -> list[list[Run]]:
        """For each field of a manifest, and each of its captions, the keys from the last subject
        token on; all are captured together. Raises ConceptUntraceable, which names the field.
        """
        tokenize = self._components.tokenizer(source)
        captions = [caption for each in fields.values() for caption in each]
        tokens = [t for field, each in fields.items() for t in tokenize(each, field=field)]
        if reach == "subject" and source != PROMPT:
            # Under the causal mask nothing behind the subject counts, and equal beginnings are one.
            prefixes = list(dict.fromkeys(t.prefix for t in tokens))
            found = dict(zip(prefixes, self._captured(source, prefixes), strict=True))
            keys = [found[t.prefix][t.last :] for t in tokens]
        else:
            whole = self._whole(source, captions, tokens, reach)
            keys = [keys[t.last :] for keys, t in zip(whole, tokens, strict=True)]
        behind = [tokenize.positions - 1 - t.last for t in tokens]
        runs = iter([Run(run, count) for run, count in zip(keys, behind, strict=True)])
        return [list(islice(runs, len(each))) for each in fields.values()]

    def texts(
        self, source: Site, captions: Sequence[Caption], *, field: str
    ) -> list[tuple[Tensor, int]]:
        """For each caption its keys (n, d_in), as far as REACH behind it, and how many positions it
        takes, start and end of text counted. Raises ConceptUntraceable.
        """
        tokens = self._components.tokenizer(source)(captions, field=field)
        whole = self._whole(source, captions, tokens, "near")
        return [(keys, len(t.ids)) for keys, t in zip(whole, tokens, strict=True)]

    def _whole(
        self, source: Site, captions: Sequence[Caption], tokens: Sequence[Tokens], reach: Reach
    ) -> list[Tensor]:
        """Keys of each caption as the pipeline pads it, at least as far as REACH behind its end."""
        if source == PROMPT:
            parts = [captions[i : i + _BATCH] for i in range(0, len(captions), _BATCH)]
            embedded = [self._components.embed([c.text for c in part]) for part in parts]
            return list(finite(torch.cat(embedded), source).unbind())
        padded = self._components.tokenizer(source).padded(tokens).tolist()
        if reach == "all":
            return self._captured(source, [tuple(row) for row in padded])
        ends = [len(t.ids) + REACH for t in tokens]
        return self._captured(
            source, [tuple(row[:end]) for row, end in zip(padded, ends, strict=True)]
        )

    def _captured(self, source: Site, rows: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Keys (len(row), d_in) for each row of token ids."""
        limit = self._components.tokenizer(source).positions
        alike: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            alike.setdefault(min(-(-len(row) // _LENGTHS) * _LENGTHS, limit), []).append(i)
        found: dict[int, Tensor] = {}
        for length, places in alike.items():
            for start in range(0, len(places), _BATCH):
                batch = places[start : start + _BATCH]
                # What is put behind a row is behind all that is read of it.
                ids = [(*rows[i], *rows[i][-1:] * (length - len(rows[i]))) for i in batch]
                keys = capture_keys(
                    self._twins[source.component],
                    source,
                    torch.tensor(ids),
                    self._kept_projections(source.component),
                )
                found.update((i, keys[at, : len(rows[i])]) for at, i in enumerate(batch))
        return [found[i] for i in range(len(rows))]

    def _kept_projections(self, component: str) -> FirstProjections:
        if component not in self._projections:
            tokenize = self._components.encoders[component].tokenizer
            stood = torch.unique(tokenize.padded(tokenize(frames()))).tolist()
            self._projections[component] = FirstProjections(
                self._twins[component], component, stood, tokenize.positions
            )
        return self._projections[component]
