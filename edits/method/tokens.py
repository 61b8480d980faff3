"""Captions as token ids, and where in them the subject ends."""

import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edits.errors import ConceptUntraceable
from edits.method.captions import Caption


@dataclass(frozen=True)
class Tokens:
    """`ids` (positions,) padded to the encoder's length; `last` is the last subject token's position."""

    ids: Tensor
    last: int


class CaptionTokenizer:
    """A pipeline's tokenizer behind a lock: fast tokenizers must not be shared by threads unguarded.

    Padding and end-of-text come from the tokenizer itself: SD 1.x pads with end-of-text, SD 2.x with id 0.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()

    def __call__(self, caption: Caption) -> Tokens:
        """Tokenise; raises ConceptUntraceable if the caption is too long or the subject has no token."""
        with self._lock:
            encoded = self._tokenizer(
                caption.text,
                padding="max_length",
                truncation=False,
                return_offsets_mapping=True,
                return_attention_mask=True,
            )
        ids, mask, limit = encoded["input_ids"], encoded["attention_mask"], self._tokenizer.model_max_length
        if sum(mask) > limit:
            raise ConceptUntraceable(
                f"caption {caption.text!r} has {sum(mask)} tokens and the encoder reads {limit}; "
                "shorten the concept or the anchor",
                param="spec.concept",
            )
        inside = [
            position
            for position, (start, stop) in enumerate(encoded["offset_mapping"])
            if mask[position] and start < caption.stop and stop > caption.start and stop > start
        ]
        if not inside:
            raise ConceptUntraceable(
                f"no token of caption {caption.text!r} belongs to "
                f"{caption.text[caption.start : caption.stop]!r}",
                param="spec.concept",
            )
        return Tokens(torch.tensor(ids), inside[-1])

    def empty(self) -> Tensor:
        """Token ids (positions,) of the empty prompt, the unconditional branch of guidance."""
        with self._lock:
            ids = self._tokenizer("", padding="max_length", truncation=False)["input_ids"]
        return torch.tensor(ids)

    def vocabulary(self) -> dict[str, int]:
        """The whole vocabulary, part of the base model's fingerprint."""
        with self._lock:
            vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        return vocabulary
