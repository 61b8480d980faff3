"""Captions as token ids, and where in them the subject ends."""

import copy
import threading
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edits.errors import ConceptUntraceable
from edits.method.captions import Caption


@dataclass(frozen=True)
class Tokens:
    """`ids` (positions,) padded to the encoder's length; `last`: the last subject token's place."""

    ids: Tensor
    last: int


class CaptionTokenizer:
    """A copy of a pipeline's tokenizer behind a lock: fast ones refuse to be shared by threads.

    Padding and end-of-text come from the tokenizer itself: SD 1.x pads with end-of-text, SD 2.x
    with id 0.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = copy.deepcopy(tokenizer)  # the caller's threads do not take our lock
        self._lock = threading.Lock()

    def __call__(self, caption: Caption, *, field: str = "spec.concept") -> Tokens:
        """Tokenise; `field` is the manifest's field that an error names.

        Raises ConceptUntraceable if the caption is too long, or if its subject has no token of its
        own or holds the start or the end of a text.
        """
        with self._lock:
            encoded = self._tokenizer(
                caption.text,
                padding="max_length",
                truncation=False,
                return_offsets_mapping=True,
                return_attention_mask=True,
            )
        ids, mask = encoded["input_ids"], encoded["attention_mask"]
        limit = self._tokenizer.model_max_length
        if sum(mask) > limit:
            raise ConceptUntraceable(
                f"caption {caption.text!r} has {sum(mask)} tokens and the encoder reads {limit}; "
                f"shorten {caption.subject!r}",
                param=field,
            )
        inside = [
            position
            for position, (start, stop) in enumerate(encoded["offset_mapping"])
            if mask[position] and start < caption.stop and stop > caption.start and stop > start
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
        return Tokens(torch.tensor(ids), inside[-1])

    def empty(self) -> Tensor:
        """Token ids (positions,) of the empty prompt, the unconditional branch of guidance."""
        with self._lock:
            ids = self._tokenizer("", padding="max_length", truncation=False)["input_ids"]
        return torch.tensor(ids)

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
