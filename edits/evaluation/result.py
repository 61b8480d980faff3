"""What an evaluation found: every group's change, and the figures that a gate decides on."""

from collections.abc import Mapping
from dataclasses import dataclass

from PIL.Image import Image

from edits.evaluation.drawing import Sampling
from edits.evaluation.drift import EmptyPromptDrift
from edits.evaluation.groups import Group
from edits.evaluation.judge_card import JudgeCard
from edits.evaluation.means import MeanChange
from edits.evaluation.prompts import Probe
from edits.evaluation.rates import Change, Rate
from edits.evaluation.suite import Suite


@dataclass(frozen=True)
class PicturePair:
    """One prompt and seed before and after: the pictures, the class that the judge sees in each,
    and its probability of the class that counts. `harm` orders them, the worst being the largest.
    """

    probe: Probe
    pictures: tuple[Image, Image]
    classes: tuple[str, str]
    probabilities: tuple[float, float]
    harm: float


@dataclass(frozen=True)
class SeenClass:
    """A class of a target's pictures, and on how many it was seen before and after."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class GroupResult:
    """How one group came out.

    change: of the class that counts; for a target the removed class, for a fact its anchor, else
    what each prompt asks for. other: for a target the anchor's class, for a fact the old one, where
    the judge knows it. worst: the retained class that fell most, None if none fell. clip: CLIPScore
    with "concept" and "anchor" captions, or with the "prompt". pairs: the worst pictures first.
    """

    group: Group
    change: Change
    other: tuple[str, Change] | None
    worst: tuple[str, Change] | None
    seen: tuple[SeenClass, ...]
    clip: Mapping[str, MeanChange]
    pairs: tuple[PicturePair, ...]

    @property
    def failed(self) -> Rate:
        """Of a target: pictures that still show the concept, or do not show a fact's anchor."""
        subject = self.group.subject
        if subject is None:
            raise ValueError(f"group {self.group.name!r} asks for no edited concept")
        after = self.change.after
        return Rate(after.count - after.hits, after.count) if subject.is_fact else after

    @property
    def badness(self) -> float:
        """The share of a target that failed, or the drop of a retained group."""
        return self.failed.value if self.group.role == "target" else self.change.drop


@dataclass(frozen=True)
class EvaluationResult:
    """Before and after a set of edits on the same prompts, seeds and judge.

    clip: CLIPScore over all target and all retained pictures, empty without a scorer. unedited:
    what the judge got wrong of the pictures before the edit, by attribute and wanted class.
    """

    suite: Suite
    sampling: Sampling
    groups: tuple[GroupResult, ...]
    clip: Mapping[str, MeanChange]
    drift: EmptyPromptDrift
    unedited: Mapping[str, Mapping[str, Rate]]
    card: JudgeCard | None
    images: int
    seconds: float

    @property
    def targets(self) -> tuple[GroupResult, ...]:
        """Groups that ask for an edited concept."""
        return tuple(g for g in self.groups if g.group.role == "target")

    @property
    def retained(self) -> tuple[GroupResult, ...]:
        """Groups that ask for anything else."""
        return tuple(g for g in self.groups if g.group.role == "retained")

    def target_rates(self, kind: str = "name") -> dict[str, Rate]:
        """`failed` by edit and group, for one kind of target groups."""
        return {
            f"{g.group.subject.spec.name}/{g.group.name}": g.failed
            for g in self.targets
            if g.group.kind == kind and g.group.subject
        }

    @property
    def target_rate(self) -> Rate:
        """Pictures by the concept's own name on which the edit failed; of several edits the worst.

        For a fact these are the pictures that do not show its anchor. Raises ValueError if no
        pictures by name were drawn.
        """
        rates = self.target_rates()
        if not rates:
            raise ValueError("no pictures by name were drawn; the suite needs the group 'name'")
        return max(rates.values(), key=lambda rate: rate.value)

    @property
    def worst_target(self) -> GroupResult | None:
        """The target group on which most pictures failed, of all names, phrasings and spellings."""
        return max(self.targets, key=lambda g: g.failed.value, default=None)

    @property
    def worst_retained(self) -> GroupResult | None:
        """The retained group that fell most, None without retained groups."""
        return max(self.retained, key=lambda g: g.change.drop, default=None)

    @property
    def max_drop(self) -> float:
        """The largest drop of a retained group as a share; negative if all rose, 0 for no group."""
        worst = self.worst_retained
        return worst.change.drop if worst else 0.0

    @property
    def harmonic_mean(self) -> float | None:
        """Of (1 - target rate by name, all edits pooled) and the retained share of what was right.

        The latter pools every other object and every other style: hits after over hits before, at
        most 1. None if one of the two was not drawn, or nothing was right before.
        """
        failed = list(self.target_rates().values())
        kept = [g.change for g in self.retained if g.group.kind in ("objects", "styles")]
        right = sum(c.before.hits for c in kept)
        if not failed or not right:
            return None
        gone = 1 - sum(r.hits for r in failed) / sum(r.count for r in failed)
        stays = min(1.0, sum(c.after.hits for c in kept) / right)
        return 2 * gone * stays / (gone + stays) if gone + stays else 0.0
