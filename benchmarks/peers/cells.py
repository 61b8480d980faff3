"""One cell of the comparison: one method on one set of concepts, every picture judged.

The probes of a class are the same in every cell that has the class, up to their number, and styled
pictures show objects that no set removes: cells differ by method and set only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.sets import COUNTS, removed, untouched
from edits.evaluation.drawing import Sampling, draw
from edits.evaluation.judge import Judge
from edits.evaluation.prompts import PLAIN, Probe, object_probes, style_probes
from edits.method import EditSpec

GROUPS = ("object", "style", "colour")
_SEEDS_PER_CLASS = 1000
_KEPT = 50 * _SEEDS_PER_CLASS  # a class that is kept has other seeds than when it is removed


@dataclass(frozen=True)
class Cell:
    """Which pictures the judge saw as asked: `target` of the removed concepts, `kept` by group.

    Colours are judged on all kept pictures, in the order plain ones, styled ones. `classes` are the
    names behind the flags of `target`, `kept["object"]` and `kept["style"]`.
    """

    method: str
    count: int
    seconds: float
    target: tuple[bool, ...]
    kept: dict[str, tuple[bool, ...]]
    classes: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class CellProbes:
    """Prompts of one set: of the removed concepts, and of all that is to stay."""

    target: tuple[Probe, ...]
    attributes: tuple[str, ...]  # what is judged of each target
    plain: tuple[Probe, ...]
    styled: tuple[Probe, ...]

    @property
    def all(self) -> tuple[Probe, ...]:
        """In the order in which they are drawn."""
        return (*self.target, *self.plain, *self.styled)


def probes_of(
    judge: Judge, specs: Sequence[EditSpec], *, targets: int, each: int, seed: int
) -> CellProbes:
    """At least `targets` pictures over the removed concepts, and `each` of every other class."""
    per_concept = -(-targets // len(specs))
    objects, styles = judge.classes["object"], judge.classes["style"]
    target, attributes = [], []
    for spec in specs:
        attribute = "style" if spec.concept in styles else "object"
        found = list(_class_probes(judge, attribute, spec.concept, per_concept, seed))
        target += found
        attributes += [attribute] * len(found)
    kept = {
        attribute: [
            probe
            for name in untouched(names, specs)
            if name != PLAIN
            for probe in _class_probes(judge, attribute, name, each, seed + _KEPT)
        ]
        for attribute, names in (("object", objects), ("style", styles))
    }
    return CellProbes(tuple(target), tuple(attributes), tuple(kept["object"]), tuple(kept["style"]))


def measure(
    edited: Any,
    judge: Judge,
    probes: CellProbes,
    sampling: Sampling,
    *,
    method: str,
    count: int,
    seconds: float,
    progress: Callable[[int], None] = lambda _drawn: None,
) -> Cell:
    """Draw and judge all probes with the edited pipeline."""
    verdicts = judge.look(draw(edited, probes.all, sampling, progress=progress))
    right = [
        {name: verdict.classes[name] == wanted for name, wanted in probe.wanted.items()}
        for probe, verdict in zip(probes.all, verdicts, strict=True)
    ]
    first, last = len(probes.target), len(probes.target) + len(probes.plain)
    return Cell(
        method=method,
        count=count,
        seconds=seconds,
        target=tuple(
            flags[name] for flags, name in zip(right[:first], probes.attributes, strict=True)
        ),
        kept={
            "object": tuple(flags["object"] for flags in right[first:last]),
            "style": tuple(flags["style"] for flags in right[last:]),
            "colour": tuple(flags["colour"] for flags in right[first:]),
        },
        classes={
            "target": tuple(
                p.wanted[name] for p, name in zip(probes.target, probes.attributes, strict=True)
            ),
            "object": tuple(p.wanted["object"] for p in probes.plain),
            "style": tuple(p.wanted["style"] for p in probes.styled),
        },
    )


def _class_probes(judge: Judge, attribute: str, name: str, each: int, seed: int) -> Iterator[Probe]:
    names, colours = judge.classes[attribute], judge.classes["colour"]
    place = names.index(name)
    seed += (place + len(judge.classes["object"]) * (attribute == "style")) * _SEEDS_PER_CLASS
    turned = _rotated(colours, place)
    if attribute == "object":
        return object_probes([name], turned, each=each, seed=seed)
    stay = untouched(judge.classes["object"], removed(COUNTS[-1]))
    return style_probes([name], _rotated(stay, place), turned, each=each, seed=seed)


def _rotated(names: Sequence[str], by: int) -> tuple[str, ...]:
    by %= len(names)
    return (*names[by:], *names[:by])
