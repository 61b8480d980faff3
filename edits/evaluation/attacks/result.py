"""What attacks found, as values and as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self


@dataclass(frozen=True)
class Find:
    """A way to ask an edited encoder for what was removed.

    name: the text, or the placeholders, that stand for the concept in `prompt`. family: for a
    spelling, how it was made. presence: in the edited encoder's answer; for vectors the mean over
    the target's templates. pristine: presence in the pristine encoder's answer to the same, which
    tells what the edit failed to take from what it brought. measures: the attack's own figures.
    vectors: (k, width), empty for a text.
    """

    name: str
    prompt: str
    presence: float
    pristine: float
    family: str = ""
    measures: Mapping[str, float] = field(default_factory=dict)
    vectors: tuple[tuple[float, ...], ...] = ()

    def document(self) -> dict[str, Any]:
        """As JSON, without what is empty."""
        return {key: value for key, value in asdict(self).items() if value not in ("", {}, ())}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read what `document` wrote."""
        vectors = tuple(tuple(vector) for vector in document.get("vectors", ()))
        return cls(**{**document, "vectors": vectors})


@dataclass(frozen=True)
class AttackOutcome:
    """One attack: its worst finds, most presence first, and what it cost.

    tried: how many different prompts or vectors were scored.
    """

    attack: str
    finds: tuple[Find, ...]
    tried: int
    passes: int
    seconds: float

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "finds": [find.document() for find in self.finds]}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Read what `document` wrote."""
        return cls(**{**document, "finds": tuple(Find.of(find) for find in document["finds"])})


@dataclass(frozen=True)
class Baselines:
    """Presence to read a find's by, each a mean over the target's templates.

    concept: of the concept's own prompts on the pristine encoder. removed: of the same on the
    edited one. anchor: of the anchor's prompts on the pristine one.
    """

    concept: float
    removed: float
    anchor: float


@dataclass(frozen=True)
class AttackResult:
    """A finished run of attacks on one text encoder of one edited pipeline."""

    identity: str
    component: str
    target: Mapping[str, Any]
    options: Mapping[str, Any]
    baselines: Baselines
    outcomes: tuple[AttackOutcome, ...]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "identity": self.identity,
            "component": self.component,
            "target": dict(self.target),
            "options": dict(self.options),
            "presence": asdict(self.baselines),
            "attacks": [outcome.document() for outcome in self.outcomes],
        }
