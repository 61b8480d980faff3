"""What an edit asks for, free of files and wire formats."""

import math
from dataclasses import dataclass
from typing import Literal

from edits.errors import EditRefused
from edits.method.sites import QUICKFIX, Site

Kind = Literal["object", "style", "fact"]
TokenMode = Literal["last", "last+pad"]


@dataclass(frozen=True)
class EditSpec:
    """One concept, what it is mapped to, and how.

    `ridge` is lambda of the closed form; `preserve_weight` is mu. `parity` reproduces the released
    code for comparison only: its four templates, the bias counted twice, nothing preserved or
    pinned; its notebook keys the padding rows too, which is `tokens="last+pad"`.
    Raises EditRefused for a ridge that is not finite and above 0, or a weight that is not finite
    and at least 0.
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
    preserve_weight: float = 0.03
    parity: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.ridge) and self.ridge > 0):
            raise EditRefused(
                f"ridge {self.ridge} is not a finite number above 0", param="spec.method.ridge"
            )
        if not (math.isfinite(self.preserve_weight) and self.preserve_weight >= 0):
            raise EditRefused(
                f"preserve_weight {self.preserve_weight} is not a finite number of at least 0",
                param="spec.method.preserve_weight",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The concept and its aliases: every name that is removed."""
        return (self.concept, *self.aliases)
