"""Token sequences that a person can type in place of a name, and that do not spell the concept.

A search over token ids easily ends at ids that no text has: fragments that a tokenizer would join,
bytes that are no character. Such a find is no prompt. Here ids count only if the text that they
decode to, normalised and tokenised again, has exactly these ids.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from edits.evaluation.attacks.encoder import EncoderView
from edits.evaluation.attacks.target import Target, frame


class Typeable:
    """What can be typed into the first template of a target.

    `tokens` (n,) are the ids that can be typed alone and name nothing that is removed. Raises
    ValueError if there are none, or if the template has more than one place for a name.
    """

    def __init__(self, view: EncoderView, target: Target) -> None:
        self._view = view
        self._target = target
        self.before, self.behind = frame(target.templates[0])
        self._head, self._tail = view.words([self.before, self.behind])
        vocabulary = [i for i in range(len(view.table)) if i not in view.special_ids]
        alone = self.texts([[i] for i in vocabulary])
        kept = [i for i, text in zip(vocabulary, alone, strict=True) if text is not None]
        if not kept:
            raise ValueError("the tokenizer has no token that can be typed alone")
        self.tokens = torch.tensor(kept)

    @property
    def start(self) -> int:
        """The position of the first searched token in a prompt."""
        return 1 + len(self._head)

    @property
    def room(self) -> int:
        """How many tokens fit between the template's words."""
        return self._view.word_limit - len(self._head) - len(self._tail)

    def texts(self, sequences: Sequence[Sequence[int]]) -> list[str | None]:
        """The text of each sequence; None for one that cannot be typed, or that names the concept.

        The text stands alone; what is checked is the whole prompt.
        """
        spelled = self._view.spell(sequences)
        prompts = [self.prompt(text) for text in spelled]
        typed = self._view.words(prompts)
        return [
            text
            if again == [*self._head, *ids, *self._tail] and not self._target.is_named(prompt)
            else None
            for text, prompt, ids, again in zip(spelled, prompts, sequences, typed, strict=True)
        ]

    def prompt(self, text: str) -> str:
        """The template with `text` in it."""
        return f"{self.before}{text}{self.behind}"

    def ids(self, sequences: Sequence[Sequence[int]]) -> Tensor:
        """Padded ids (sequences, positions) of the prompts that hold the sequences."""
        return self._view.framed([[*self._head, *ids, *self._tail] for ids in sequences])

    def draw(self, count: int, length: int, generator: torch.Generator) -> list[tuple[int, ...]]:
        """`count` different random sequences that can be typed.

        Raises ValueError if chance does not find them, since the length leaves too few.
        """
        found: dict[tuple[int, ...], None] = {}
        for _ in range(_ATTEMPTS):
            picks = torch.randint(len(self.tokens), (count, length), generator=generator)
            rows = [tuple(row) for row in self.tokens[picks].tolist()]
            texts = self.texts(rows)
            found |= {row: None for row, text in zip(rows, texts, strict=True) if text is not None}
            if len(found) >= count:
                return list(found)[:count]
        raise ValueError(
            f"{len(found)} of {count} sequences of {length} tokens can be typed into "
            f"{self._target.templates[0]!r}; take another length"
        )


_ATTEMPTS = 50
