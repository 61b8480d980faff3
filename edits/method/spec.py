"""What an edit asks for, free of files and wire formats."""

import math
from dataclasses import dataclass
from typing import Literal

from edits.errors import EditRefused
from edits.method.sites import PRESETS, Site

# What a preset of sites sets where a manifest does not: the settings that were published with it.
PRESET_SETTINGS: dict[str, dict[str, str | float]] = {
    "uce": {"tokens": "last", "ridge": 0.5, "preserve_weight": 1.0},
    "time": {"tokens": "last", "ridge": 0.1, "preserve_weight": 0.0},
    "locoedit": {"tokens": "last", "ridge": 0.01, "preserve_weight": 0.0},
}

Kind = Literal["object", "style", "fact"]
TokenMode = Literal["last", "last+pad"]


@dataclass(frozen=True)
class EditSpec:
    """One concept, what it is mapped to, and how.

    `ridge` is lambda of the closed form; `preserve_weight` is mu; `pad_weight` is what all rows
    behind the subject weigh together, in the measure of the subject's own row; `neighbours` is how
    many of the nearest names are looked at for what else would move. `parity` reproduces the
    released code for comparison only: its four templates, the bias counted twice, nothing preserved
    or pinned; its notebook keys the padding rows too, which is `tokens="last+pad"`.
    Raises EditRefused for a ridge that is not finite and above 0, or a weight that is not finite
    and at least 0.
    """

    name: str
    concept: str
    anchor: str
    aliases: tuple[str, ...] = ()
    kind: Kind = "object"
    preserve: tuple[str, ...] = ()
    sites: tuple[Site, ...] = PRESETS["quickfix"]
    tokens: TokenMode = "last+pad"
    ridge: float = 30.0
    preserve_weight: float = 0.05
    pad_weight: float = 1.0
    neighbours: int = 16
    parity: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.ridge) and self.ridge > 0):
            raise EditRefused(
                f"ridge {self.ridge} is not a finite number above 0", param="spec.method.ridge"
            )
        for field in ("preserve_weight", "pad_weight"):
            weight = getattr(self, field)
            if not (math.isfinite(weight) and weight >= 0):
                raise EditRefused(
                    f"{field} {weight} is not a finite number of at least 0",
                    param=f"spec.method.{field}",
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The concept and its aliases: every name that is removed."""
        return (self.concept, *self.aliases)
