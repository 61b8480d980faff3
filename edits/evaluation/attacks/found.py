"""What a token search keeps: the best prompts that it has seen, and no two that are nearly one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edits.evaluation.attacks.typeable import Typeable


@dataclass(frozen=True)
class Found:
    """A prompt, what stands in it for the concept, its token ids, and the search's loss."""

    name: str
    prompt: str
    ids: tuple[int, ...]
    loss: float


@dataclass(frozen=True)
class Searched:
    """A search's best finds, least loss first, and how many sequences it tried."""

    found: tuple[Found, ...]
    tried: int


class Pool:
    """The loss of every sequence that a search has tried."""

    def __init__(self) -> None:
        self._losses: dict[tuple[int, ...], float] = {}

    def add(self, losses: Mapping[tuple[int, ...], float]) -> None:
        """Remember the losses of sequences."""
        self._losses |= losses

    def best(self, count: int, typeable: Typeable) -> Searched:
        """Up to `count`, least loss first; one that shares over half its tokens is passed over.

        A search ends among variants of one find: to count them apart would be to count it twice.
        """
        chosen: list[tuple[int, ...]] = []
        for row in sorted(self._losses, key=lambda row: (self._losses[row], row)):
            if len(chosen) == count:
                break
            if not any(_shared(row, other) > len(row) / 2 for other in chosen):
                chosen.append(row)
        texts = typeable.texts(chosen)
        found = (
            Found(text, typeable.prompt(text), row, self._losses[row])
            for row, text in zip(chosen, texts, strict=True)
            if text is not None
        )
        return Searched(tuple(found), len(self._losses))


def _shared(row: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences have in common, wherever they stand."""
    rest = list(other)
    for token in row:
        if token in rest:
            rest.remove(token)
    return len(other) - len(rest)
