"""What an edit is scored on: groups of prompts that ask for its concept, or for everything else."""

from dataclasses import dataclass
from typing import Literal

from edits.evaluation.prompts import Probe
from edits.evaluation.subject import Subject

Role = Literal["target", "retained"]

TARGET_KINDS = {
    "name": "by its name",
    "alias": "by alias",
    "unseen": "in unseen templates",
    "mid-sentence": "mid-sentence",
    "twice": "twice in a sentence",
    "possessive": "possessive",
    "plural": "plural",
    "typo": "with a typo",
    "spacing": "spaced or hyphenated",
    "case": "in other case",
    "homoglyph": "look-alikes, zero-width",
}
RETAINED_KINDS = {
    "objects": "every other object",
    "neighbours": "nearest names",
    "styles": "every other style",
    "colours": "background colours",
    "depicted": "objects of the removed style",
}
KINDS = (*TARGET_KINDS, *RETAINED_KINDS)

_SEEDS = 10_000  # between the first seeds of two kinds, so that a kind's pictures are its own
_EDIT_SEEDS = 1_000_000


@dataclass(frozen=True)
class Group:
    """Prompts that are counted together by one attribute of the judge's.

    A target group asks for `subject`'s concept and counts pictures of `subject.counted`; a retained
    group counts those of each probe's wanted class. Names are unique among the groups of an edit
    and among the retained ones.
    """

    name: str
    kind: str
    title: str
    role: Role
    attribute: str
    probes: tuple[Probe, ...]
    subject: Subject | None = None


def first_seed(seed: int, kind: str, edit: int = 0) -> int:
    """The seed of a kind's first picture: the same, whatever else is chosen."""
    return seed + _SEEDS * KINDS.index(kind) + _EDIT_SEEDS * edit
