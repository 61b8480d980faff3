"""What an edit asks for, free of files and wire formats."""

from dataclasses import dataclass
from typing import Literal

from edits.method.sites import QUICKFIX, Site

Kind = Literal["object", "style", "fact"]
TokenMode = Literal["last", "last+pad"]


@dataclass(frozen=True)
class EditSpec:
    """One concept, what it is mapped to, and how.

    `ridge` is lambda of the closed form; `preserve_weight` is mu; `parity` reproduces the released
    code (bias counted twice, all padding rows, nothing preserved or pinned) for comparison only.
    """

    name: str
    concept: str
    anchor: str
    aliases: tuple[str, ...] = ()
    kind: Kind = "object"
    preserve: tuple[str, ...] = ()
    sites: tuple[Site, ...] = (QUICKFIX,)
    tokens: TokenMode = "last"
    ridge: float = 0.01
    preserve_weight: float = 1.0
    parity: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The concept and its aliases: every name that is removed."""
        return (self.concept, *self.aliases)
