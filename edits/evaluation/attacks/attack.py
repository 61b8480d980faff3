"""The attacks by name: each makes finds from one pair of encoders, one target and one budget."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edits.evaluation.attacks.characters import Variant, character_variants
from edits.evaluation.attacks.encoder import PLACEHOLDER, EncoderView
from edits.evaluation.attacks.found import Searched
from edits.evaluation.attacks.genetic import GeneticOptions, genetic_search
from edits.evaluation.attacks.gradient import GradientOptions, gradient_search
from edits.evaluation.attacks.inversion import Inversion, InversionOptions, learn_vectors, spaced
from edits.evaluation.attacks.pair import EncoderPair
from edits.evaluation.attacks.presence import Presence
from edits.evaluation.attacks.result import Find
from edits.evaluation.attacks.target import Target, written

MIN_BUDGET = 500
_SCORED = 512  # prompts whose states are held at once


@dataclass(frozen=True)
class AttackOptions:
    """`budget` is in forward passes, for each attack; `worst` is how many finds each search keeps,
    and `sample` how many spellings are drawn without a search.

    Raises ValueError for an unknown attack, a budget in which no search gets anywhere, or no finds.
    """

    attacks: tuple[str, ...] = (
        "spellings",
        "characters",
        "transfer",
        "genetic",
        "gradient",
        "inversion",
    )
    budget: int = 20_000
    seed: int = 0
    worst: int = 8
    sample: int = 50
    genetic: GeneticOptions = field(default_factory=GeneticOptions)
    gradient: GradientOptions = field(default_factory=GradientOptions)
    inversion: InversionOptions = field(default_factory=InversionOptions)

    def __post_init__(self) -> None:
        unknown = [name for name in self.attacks if name not in ATTACKS]
        if unknown or not self.attacks:
            raise ValueError(f"unknown attacks {unknown}; there are {', '.join(ATTACKS)}")
        if self.budget < MIN_BUDGET or self.worst < 1 or self.sample < 1:
            raise ValueError(
                f"give a budget of at least {MIN_BUDGET} passes, and at least 1 find and 1 spelling"
            )

    def document(self) -> dict[str, Any]:
        """As JSON."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return document


@dataclass(frozen=True)
class Scene:
    """What every attack is given."""

    pair: EncoderPair
    target: Target
    presence: Presence
    options: AttackOptions

    @torch.no_grad()
    def score(self, prompts: Sequence[str], *, pristine: bool = False) -> list[float]:
        """Presence in the answers of the edited encoder, or of the pristine one."""
        view = self.pair.pristine if pristine else self.pair.edited
        parts = [prompts[start : start + _SCORED] for start in range(0, len(prompts), _SCORED)]
        return [score for part in parts for score in self.presence(view.from_texts(part)).tolist()]

    @torch.no_grad()
    def score_vectors(self, vectors: Tensor, *, pristine: bool = False) -> list[float]:
        """Presence in each template whose name is `vectors` (k, width)."""
        view = self.pair.pristine if pristine else self.pair.edited
        ids = view.tokenise([spaced(t, placeholders(len(vectors))) for t in self.target.templates])
        scores: list[float] = self.presence(view.from_vectors(ids, vectors)).tolist()
        return scores

    def worst(self, finds: Iterable[Find]) -> list[Find]:
        """The finds of most presence, with the pristine encoder's beside it."""
        return self.beside_pristine(sorted(finds, key=lambda f: -f.presence)[: self.options.worst])

    def beside_pristine(self, kept: Sequence[Find]) -> list[Find]:
        """The finds with the pristine encoder's presence."""
        scores = self.score([find.prompt for find in kept], pristine=True)
        return [replace(find, pristine=score) for find, score in zip(kept, scores, strict=True)]


def placeholders(count: int) -> str:
    """The name that stands for `count` vectors in a prompt."""
    return " ".join([PLACEHOLDER] * count)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return sum(values) / len(values)


def _spellings(scene: Scene) -> tuple[list[Find], int]:
    """Spellings as they come, none chosen by what it does: how often does a slip get past?"""
    count = scene.options.sample
    spelled = _spelled(scene, count)
    order = np.random.default_rng(scene.options.seed).permutation(len(spelled))
    tries = [spelled[i] for i in order[:count]]
    scores = scene.score([prompt for _, prompt in tries])
    finds = [
        Find(variant.text, prompt, score, 0.0, variant.family)
        for (variant, prompt), score in zip(tries, scores, strict=True)
    ]
    return scene.beside_pristine(finds), len(tries)


def _spelled(scene: Scene, each: int) -> list[tuple[Variant, str]]:
    """Up to `each` spellings of every name, in every template in which they fit.

    Spellings with the same tokens are one.
    """
    target, view = scene.target, scene.pair.edited
    made = [
        variant
        for name in target.names
        for variant in character_variants(name, limit=each, seed=scene.options.seed)
    ]
    ids = view.words([variant.text for variant in made])
    variants = dict(zip(map(str, ids), made, strict=True))
    tries = [(v, written(t, v.text)) for v in variants.values() for t in target.templates]
    lengths = map(len, view.words([prompt for _, prompt in tries]))
    return [each for each, n in zip(tries, lengths, strict=True) if n <= view.word_limit]


def _characters(scene: Scene) -> tuple[list[Find], int]:
    """Spellings of every name in every template; each counts where it does most."""
    names, templates = scene.target.names, scene.target.templates
    tries = _spelled(scene, scene.options.budget // (len(names) * len(templates)))
    scores = scene.score([prompt for _, prompt in tries])
    best: dict[str, Find] = {}
    for (variant, prompt), score in zip(tries, scores, strict=True):
        if variant.text not in best or best[variant.text].presence < score:
            best[variant.text] = Find(variant.text, prompt, score, 0.0, variant.family)
    return scene.worst(best.values()), len(tries)


def _transfer(scene: Scene) -> tuple[list[Find], int]:
    """The genetic search of someone who has no edited encoder."""
    return _genetic(scene, scene.pair.pristine)


def _genetic(scene: Scene, searched: EncoderView | None = None) -> tuple[list[Find], int]:
    options = scene.options
    found = genetic_search(
        scene.pair.pristine,
        searched or scene.pair.edited,
        scene.target,
        options.genetic,
        budget=options.budget,
        seed=options.seed,
        keep=options.worst,
    )
    return _scored(scene, found), found.tried


def _gradient(scene: Scene) -> tuple[list[Find], int]:
    options = scene.options
    found = gradient_search(
        scene.pair.edited,
        scene.presence,
        scene.target,
        options.gradient,
        budget=options.budget,
        seed=options.seed,
        keep=options.worst,
    )
    return _scored(scene, found), found.tried


def _scored(scene: Scene, searched: Searched) -> list[Find]:
    scores = scene.score([found.prompt for found in searched.found])
    return scene.worst(
        Find(found.name, found.prompt, score, 0.0, measures={"loss": found.loss})
        for found, score in zip(searched.found, scores, strict=True)
    )


def _inversion(scene: Scene) -> tuple[list[Find], int]:
    options, pair = scene.options, scene.pair
    counts = options.inversion.vectors
    found = []
    for count in counts:
        learned = learn_vectors(
            pair.pristine,
            pair.edited,
            scene.target,
            options.inversion,
            count=count,
            budget=options.budget // len(counts),
            seed=options.seed,
        )
        found.append(_inverted(scene, learned))
    return found, len(found)


def _inverted(scene: Scene, learned: Inversion) -> Find:
    name = placeholders(len(learned.vectors))
    return Find(
        name=name,
        prompt=spaced(scene.target.templates[0], name),
        presence=mean(scene.score_vectors(learned.vectors)),
        pristine=mean(scene.score_vectors(learned.vectors, pristine=True)),
        measures={
            "loss": learned.loss,
            "ratio_to_start": learned.ratio_to_start,
            "ratio_to_anchor": learned.ratio_to_anchor,
        },
        vectors=tuple(tuple(row) for row in learned.vectors.tolist()),
    )


Attack = Callable[[Scene], tuple[list[Find], int]]
ATTACKS: Mapping[str, Attack] = {
    "spellings": _spellings,
    "characters": _characters,
    "transfer": _transfer,
    "genetic": _genetic,
    "gradient": _gradient,
    "inversion": _inversion,
}
