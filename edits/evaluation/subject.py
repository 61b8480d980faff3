"""What of an edit the judge can see: the class that is to go, and the one that is to come."""

from collections.abc import Sequence
from dataclasses import dataclass

from edits.errors import QuickFixError
from edits.evaluation.judge import Judge
from edits.evaluation.prompts import PLAIN
from edits.evaluation.templates import Form
from edits.method import EditSpec

ATTRIBUTES = ("object", "style")


@dataclass(frozen=True)
class Subject:
    """An edit in the judge's words.

    removed: the class that the concept is drawn as; None for a fact whose concept is no class.
    anchor: the class that the concept is to be drawn as; None where the judge has no such class.
    """

    spec: EditSpec
    attribute: str
    removed: str | None
    anchor: str | None

    @property
    def is_fact(self) -> bool:
        """A fact is scored by its anchor's rise, everything else by the concept's fall."""
        return self.spec.kind == "fact"

    @property
    def counted(self) -> str:
        """The class that the edit is scored by."""
        wanted = self.anchor if self.is_fact else self.removed
        assert wanted is not None  # noqa: S101 - `subject_of` refuses the edit otherwise
        return wanted

    @property
    def form(self) -> Form:
        """The kind of sentence that names the concept."""
        if self.attribute == "style":
            return "style"
        return "fact" if self.is_fact else "object"


def subject_of(judge: Judge, spec: EditSpec) -> Subject:
    """The edit in the judge's words; a class that an alias names stands for the concept.

    Raises QuickFixError if the judge knows neither the concept nor an alias, or a fact's anchor.
    """
    known = {
        name: attribute
        for attribute in reversed(ATTRIBUTES)
        for name in judge.classes.get(attribute, ())
    }
    removed = next((name for name in spec.names if name in known), None)
    anchor = spec.anchor if spec.anchor in known else None
    if spec.kind == "fact":
        if anchor is None:
            raise QuickFixError(
                f"edit {spec.name!r} cannot be scored: a fact is scored by its anchor, and the "
                f"judge does not know {spec.anchor!r}; it knows {', '.join(known)}",
                param="spec.anchor",
            )
        attribute = known[anchor]
        if removed is not None and known[removed] != attribute:
            removed = None
        return Subject(spec, attribute, removed, anchor)
    if removed is None:
        raise QuickFixError(
            f"edit {spec.name!r} cannot be scored: the judge knows neither "
            f"{' nor '.join(repr(name) for name in spec.names)}; it knows {', '.join(known)}",
            param="spec.concept",
        )
    if removed == PLAIN and known[removed] == "style":
        raise QuickFixError(
            f"edit {spec.name!r} cannot be scored: {PLAIN!r} is the judge's word for a picture "
            "without a style",
            param="spec.concept",
        )
    attribute = known[removed]
    return Subject(
        spec, attribute, removed, anchor if anchor and known[anchor] == attribute else None
    )


def kept_classes(judge: Judge, attribute: str, subjects: Sequence[Subject]) -> tuple[str, ...]:
    """The classes of an attribute that no edit removes, without the style of plain pictures."""
    gone = {s.removed for s in subjects if s.attribute == attribute}
    return tuple(name for name in judge.classes[attribute] if name not in gone and name != PLAIN)
