"""Draw what attacks found with the edited pipeline, and let the judge count what came back."""

from collections.abc import Callable, Mapping, Sequence
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
    pictures: int,
    first_seed: int,
    worst: int | None = None,
    progress: Callable[[int], None] = lambda _drawn: None,
) -> tuple[DrawnAttack, ...]:
    """The `worst` finds of every attack (None: all that were kept), `pictures` of each prompt.

    No two pictures of an attack start from the same noise, which may draw the class whatever is
    asked for: seeds are counted on from `first_seed`, for every attack and pipeline alike.
    `pipeline` runs the edited components (`edits.method.with_components`). Vectors are drawn in
    every template of the target, a text in its own prompt. What counts is the class of `subject`
    that was to go. Raises QuickFixError as `removed_class` does.
    """
    canvas = _Canvas(
        pipeline=pipeline,
        result=result,
        judge=judge,
        attribute=subject.attribute,
        removed=removed_class(subject),
        sampling=sampling,
        pictures=pictures,
        first_seed=first_seed,
        progress=progress,
    )
    drawn = []
    for outcome in result.outcomes:
        finds = dict(enumerate(outcome.finds[:worst]))
        texts = {i: [find.prompt] for i, find in finds.items() if not find.vectors}
        rates = canvas.rates(texts)
        rates |= {i: canvas.rate_of_vectors(i, f) for i, f in finds.items() if f.vectors}
        drawn.append(
            DrawnAttack(outcome.attack, tuple(DrawnFind(f, rates[i]) for i, f in finds.items()))
        )
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
    pictures: int
    first_seed: int
    progress: Callable[[int], None]

    def rates(self, groups: Mapping[int, Sequence[str]]) -> dict[int, Rate]:
        """How often the prompts of each find, by its number, show the concept."""
        wanted = {self.attribute: self.removed}
        probes = {
            number: [
                Probe(prompt, seed, wanted)
                for place, prompt in enumerate(prompts, start=number * len(prompts))
                for seed in self._seeds(place)
            ]
            for number, prompts in groups.items()
        }
        flat = [probe for part in probes.values() for probe in part]
        if not flat:
            return {}
        pictures = draw(self.pipeline, flat, self.sampling, progress=self.progress)
        seen = iter(v.classes[self.attribute] == self.removed for v in self.judge.look(pictures))
        return {
            number: Rate(sum(next(seen) for _ in part), len(part))
            for number, part in probes.items()
        }

    def rate_of_vectors(self, number: int, find: Find) -> Rate:
        """How often the concept shows where prompts hold the vectors."""
        component = self.result.component
        module = getattr(self.pipeline, component)
        tokenizer = getattr(self.pipeline, component.replace(TEXT_ENCODER, "tokenizer"))
        placeholder = EncoderView(module, tokenizer).placeholder_id
        prompts = [spaced(template, find.name) for template in self.result.target["templates"]]
        with speaking(module, placeholder, torch.tensor(find.vectors)):
            return self.rates({number: prompts})[number]

    def _seeds(self, place: int) -> range:
        """Those of the prompt at `place` among all prompts of an attack."""
        start = self.first_seed + place * self.pictures
        return range(start, start + self.pictures)
