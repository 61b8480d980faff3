"""The whole examination of a set of edits: every group of prompts, chosen before a picture is
drawn.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edits.errors import QuickFixError
from edits.evaluation.groups import KINDS, Group
from edits.evaluation.judge import Judge
from edits.evaluation.prompts import Probe
from edits.evaluation.retained import retained_groups
from edits.evaluation.subject import Subject, kept_classes, subject_of
from edits.evaluation.target import target_groups
from edits.evaluation.text_features import end_of_text
from edits.method import EditSpec

NEIGHBOURS = 5


@dataclass(frozen=True)
class Suite:
    """What is drawn for a set of edits, and how it is counted.

    neighbours: for each edit the names nearest to its concept, nearest first.
    """

    subjects: tuple[Subject, ...]
    groups: tuple[Group, ...]
    neighbours: Mapping[str, tuple[str, ...]]
    targets: int
    each: int
    seed: int

    @property
    def probes(self) -> tuple[Probe, ...]:
        """Every picture once: groups may share some."""
        found = {probe.key: probe for group in self.groups for probe in group.probes}
        return tuple(found.values())


def edit_suite(
    pipeline: Any,
    judge: Judge,
    specs: Sequence[EditSpec],
    *,
    targets: int = 100,
    each: int = 8,
    seed: int = 7000,
    kinds: Sequence[str] = KINDS,
) -> Suite:
    """The groups of `kinds` for edits that are applied together.

    pipeline: the pristine model, for the names nearest to a concept. targets: pictures of every
    target group, and the least of a retained group that is drawn. each: the least for every class
    that is retained. Raises QuickFixError for an unknown kind, for no edit or two of one name,
    and for an edit that the judge cannot score.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise QuickFixError(
            f"there is no group {unknown[0]!r}; choose from {', '.join(KINDS)}", param="groups"
        )
    names = [spec.name for spec in specs]
    if len(set(names)) != len(names) or not names:
        raise QuickFixError(f"an evaluation needs edits of different names, not {names}")
    subjects = tuple(subject_of(judge, spec) for spec in specs)
    neighbours = {
        s.spec.name: nearest_names(
            pipeline, s.spec.concept, kept_classes(judge, s.attribute, subjects)
        )
        for s in subjects
    }
    objects, colours = kept_classes(judge, "object", subjects), judge.classes["colour"]
    groups = [
        group
        for number, subject in enumerate(subjects)
        for group in target_groups(
            subject, objects, colours, targets=targets, seed=seed, edit=number, kinds=kinds
        )
    ]
    groups += retained_groups(
        judge, subjects, neighbours, targets=targets, each=each, seed=seed, kinds=kinds
    )
    return Suite(subjects, tuple(groups), neighbours, targets, each, seed)


def nearest_names(
    pipeline: Any, name: str, candidates: Sequence[str], number: int = NEIGHBOURS
) -> tuple[str, ...]:
    """The `number` candidates nearest to `name`, nearest first, by the final embedding.

    Cosine of the hidden states at end-of-text of the bare names, less the candidates' mean: all
    texts of a CLIP encoder lie in one narrow cone.
    """
    vectors = end_of_text(pipeline, [name, *candidates])
    centred = torch.nn.functional.normalize(vectors - vectors[1:].mean(0), dim=-1)
    similarity: Tensor = centred[1:] @ centred[0]
    order = similarity.argsort(descending=True, stable=True).tolist()
    return tuple(candidates[i] for i in order[:number])
