"""Captions as token ids, and where in them the subject ends."""

import copy
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edits.errors import ConceptUntraceable
from edits.method.captions import Caption


@dataclass(frozen=True)
class Tokens:
    """`ids` up to and with end-of-text, not padded; `last`: the last subject token's place."""

    ids: tuple[int, ...]
    last: int

    @property
    def prefix(self) -> tuple[int, ...]:
        """The ids up to the last subject token: under a causal mask its key depends on no more."""
        return self.ids[: self.last + 1]


class CaptionTokenizer:
    """A copy of a pipeline's tokenizer behind a lock: fast ones refuse to be shared by threads.

    Padding and end-of-text come from the tokenizer itself: SD 1.x pads with end-of-text, SD 2.x
    with id 0.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = copy.deepcopy(tokenizer)  # the caller's threads do not take our lock
        self._lock = threading.Lock()

    def __call__(self, captions: Sequence[Caption], *, field: str = "spec.concept") -> list[Tokens]:
        """Tokenise; `field` is the manifest's field that an error names.

        Raises ConceptUntraceable if a caption is too long, or if its subject has no token of its
        own or holds the start or the end of a text.
        """
        if not captions:
            return []
        with self._lock:
            encoded = self._tokenizer(
                [caption.text for caption in captions],
                padding=False,
                truncation=False,
                return_offsets_mapping=True,
            )
        rows = zip(captions, encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [self._tokens(caption, ids, spans, field) for caption, ids, spans in rows]

    def fits(self, captions: Sequence[Caption]) -> list[bool]:
        """Whether each caption is within what the encoder reads."""
        # A token is at least one byte: most captions need not be tokenised to know that they fit.
        if all(len(c.text.encode()) <= self.positions - 2 for c in captions):
            return [True] * len(captions)
        with self._lock:
            encoded = self._tokenizer([c.text for c in captions], padding=False, truncation=False)
        return [len(ids) <= self.positions for ids in encoded["input_ids"]]

    def empty(self) -> Tensor:
        """Token ids (positions,) of the empty prompt, the unconditional branch of guidance."""
        with self._lock:
            ids = self._tokenizer("", padding="max_length", truncation=False)["input_ids"]
        return torch.tensor(ids)

    def padded(self, tokens: Sequence[Tokens]) -> Tensor:
        """Token ids (captions, positions), as the pipeline pads a prompt."""
        limit, pad = self.positions, self._tokenizer.pad_token_id
        return torch.tensor([[*t.ids, *(pad,) * (limit - len(t.ids))] for t in tokens])

    @property
    def positions(self) -> int:
        """Tokens that the encoder reads, start and end of text counted."""
        return int(self._tokenizer.model_max_length)

    def identity(self) -> dict[str, Any]:
        """What decides a prompt's ids, for the base model's fingerprint: vocabulary and padding."""
        with self._lock:
            return {
                "vocabulary": self._tokenizer.get_vocab(),
                "start": self._tokenizer.bos_token_id,
                "end": self._tokenizer.eos_token_id,
                "padding": self._tokenizer.pad_token_id,
                "positions": self._tokenizer.model_max_length,
            }

    def _tokens(
        self, caption: Caption, ids: list[int], spans: list[tuple[int, int]], field: str
    ) -> Tokens:
        if len(ids) > self.positions:
            raise ConceptUntraceable(
                f"caption {caption.text!r} has {len(ids)} tokens and the encoder reads "
                f"{self.positions}; shorten {caption.subject!r}",
                param=field,
            )
        inside = [
            position
            for position, (start, stop) in enumerate(spans)
            if start < caption.stop and stop > caption.start and stop > start
        ]
        if not inside:
            raise ConceptUntraceable(
                f"no token of caption {caption.text!r} belongs to {caption.subject!r}", param=field
            )
        # Every prompt has these two: an edit keyed on one of them would change every image.
        frame = {self._tokenizer.bos_token_id, self._tokenizer.eos_token_id}
        if frame.intersection(ids[position] for position in inside):
            raise ConceptUntraceable(
                f"{caption.subject!r} holds the start or the end of a text; name it in words",
                param=field,
            )
        return Tokens(tuple(ids), inside[-1])
