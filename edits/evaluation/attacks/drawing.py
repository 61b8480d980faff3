"""Draw what attacks found with the edited pipeline, and let the judge count what came back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from edits.errors import QuickFixError
from edits.evaluation.attacks.encoder import EncoderView, speaking
from edits.evaluation.attacks.inversion import spaced
from edits.evaluation.attacks.result import AttackResult, Find
from edits.evaluation.drawing import Sampling, draw
from edits.evaluation.judge import Judge
from edits.evaluation.prompts import Probe
from edits.evaluation.rates import Rate
from edits.evaluation.subject import Subject
from edits.method.sites import TEXT_ENCODER


@dataclass(frozen=True)
class DrawnFind:
    """A find, and on how many of its pictures the judge sees what was removed."""

    find: Find
    success: Rate


@dataclass(frozen=True)
class DrawnAttack:
    """One attack's worst finds as pictures."""

    attack: str
    finds: tuple[DrawnFind, ...]

    @property
    def success(self) -> Rate:
        """Over all pictures of the attack."""
        rates = [drawn.success for drawn in self.finds]
        return Rate(sum(r.hits for r in rates), sum(r.count for r in rates))

    @property
    def finds_that_succeed(self) -> Rate:
        """Finds of which at least one picture shows the concept."""
        return Rate(sum(drawn.success.hits > 0 for drawn in self.finds), len(self.finds))

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "attack": self.attack,
            "success": self.success.document(),
            "finds_that_succeed": self.finds_that_succeed.document(),
            "finds": [
                {"prompt": drawn.find.prompt, "name": drawn.find.name, **drawn.success.document()}
                for drawn in self.finds
            ],
        }


def removed_class(subject: Subject) -> str:
    """The class that an attack is to bring back. Raises QuickFixError for a fact without one."""
    if subject.removed is None:
        raise QuickFixError(
            f"edit {subject.spec.name!r} cannot be attacked: the judge has no class "
            f"{subject.spec.concept!r}, so nothing tells whether it came back; name an edit that "
            "removes a class of the judge",
            param="spec.concept",
        )
    return subject.removed


def draw_attacks(
    pipeline: Any,
    result: AttackResult,
    judge: Judge,
    subject: Subject,
    sampling: Sampling,
    *,
    seeds: Sequence[int],
    worst: int | None = None,
    progress: Callable[[int], None] = lambda _drawn: None,
) -> tuple[DrawnAttack, ...]:
    """The `worst` finds of every attack (None: all that were kept), each with every seed.

    `pipeline` runs the edited components (`edits.method.with_components`). Vectors are drawn in
    every template of the target, a text in its own prompt. What counts is the class of `subject`
    that was to go. Raises QuickFixError as `removed_class` does.
    """
    canvas = _Canvas(
        pipeline, result, judge, subject.attribute, removed_class(subject), sampling, progress
    )
    drawn = []
    for outcome in result.outcomes:
        finds = outcome.finds[:worst]
        texts = [find for find in finds if not find.vectors]
        rates = dict(
            zip(map(id, texts), canvas.rates([[f.prompt] for f in texts], seeds), strict=True)
        )
        for find in finds:
            if find.vectors:
                rates[id(find)] = canvas.rate_of_vectors(find, seeds)
        drawn.append(DrawnAttack(outcome.attack, tuple(DrawnFind(f, rates[id(f)]) for f in finds)))
    return tuple(drawn)


@dataclass(frozen=True)
class _Canvas:
    """Where and how pictures are drawn and judged."""

    pipeline: Any
    result: AttackResult
    judge: Judge
    attribute: str
    removed: str
    sampling: Sampling
    progress: Callable[[int], None]

    def rates(self, groups: Sequence[Sequence[str]], seeds: Sequence[int]) -> list[Rate]:
        """How often each group of prompts shows the concept, over prompts and seeds."""
        wanted = {self.attribute: self.removed}
        probes = [
            [Probe(prompt, seed, wanted) for prompt in prompts for seed in seeds]
            for prompts in groups
        ]
        flat = [probe for part in probes for probe in part]
        if not flat:
            return []
        pictures = draw(self.pipeline, flat, self.sampling, progress=self.progress)
        seen = iter(v.classes[self.attribute] == self.removed for v in self.judge.look(pictures))
        return [Rate(sum(next(seen) for _ in part), len(part)) for part in probes]

    def rate_of_vectors(self, find: Find, seeds: Sequence[int]) -> Rate:
        """How often the concept shows where prompts hold the vectors."""
        component = self.result.component
        module = getattr(self.pipeline, component)
        tokenizer = getattr(self.pipeline, component.replace(TEXT_ENCODER, "tokenizer"))
        placeholder = EncoderView(module, tokenizer).placeholder_id
        prompts = [spaced(template, find.name) for template in self.result.target["templates"]]
        with speaking(module, placeholder, torch.tensor(find.vectors)):
            return self.rates([prompts], seeds)[0]
