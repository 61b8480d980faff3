"""A genetic search of tokens near the concept's direction: the idea of Ring-A-Bell.

Tsai et al., 2023 (arXiv 2310.10012): the concept's direction c is the mean difference of the
pristine encoder's answers to prompts with the concept and to the same prompts without it; wanted
are tokens whose answer is near that of a harmless prompt plus eta c. Here the other prompts name
the anchor, and the harmless one is the first template with nobody named. The paper's attacker has
the pristine encoder only and hopes that the find transfers; one who has the edited encoder searches
that.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from edits.evaluation.attacks.encoder import EncoderView
from edits.evaluation.attacks.found import Pool, Searched
from edits.evaluation.attacks.target import Target, without
from edits.evaluation.attacks.typeable import Typeable

Row = tuple[int, ...]  # token ids

_REDRAWS = 8  # times that children which cannot be typed are bred again in one generation


@dataclass(frozen=True)
class GeneticOptions:
    """`mutation` is the chance of a token to be replaced, `crossover` of a child to be of two.

    `elite` is the share that survives as it is and breeds the rest; `eta` is the paper's strength.
    The budget is shared by `runs` populations that know nothing of each other.
    Raises ValueError for values that make no search.
    """

    population: int = 100
    generations: int = 50
    runs: int = 4
    length: int = 8
    mutation: float = 0.25
    crossover: float = 0.5
    elite: float = 0.25
    eta: float = 3.0

    def __post_init__(self) -> None:
        if min(self.population, self.length) < 2 or min(self.generations, self.runs) < 1:
            raise ValueError(
                "a genetic search needs 2 sequences of 2 tokens, 1 generation and 1 run"
            )
        if not all(0 <= share <= 1 for share in (self.mutation, self.crossover, self.elite)):
            raise ValueError("mutation, crossover and elite are shares from 0 to 1")


def concept_direction(pristine: EncoderView, target: Target) -> Tensor:
    """The mean difference (positions, width) of answers to the concept and to the anchor."""
    concept = pristine.from_texts(target.prompts(target.concept)).states
    anchor = pristine.from_texts(target.prompts(target.anchor)).states
    return (concept - anchor).mean(0)


def genetic_search(
    pristine: EncoderView,
    searched: EncoderView,
    target: Target,
    options: GeneticOptions,
    *,
    budget: int,
    seed: int,
    keep: int,
) -> Searched:
    """The `keep` prompts whose answer by `searched` is nearest to the wanted one, nearest first.

    Their `loss` is the squared distance, of one state on average. No more than `budget` prompts are
    run.
    """
    typeable = Typeable(searched, target)
    harmless = pristine.from_texts([without(target.templates[0])]).states[0]
    wanted = harmless + options.eta * concept_direction(pristine, target)

    def losses(rows: list[Row]) -> dict[Row, float]:
        states = searched.from_ids(typeable.ids(rows)).states
        distances = (states - wanted).square().sum(-1).mean(-1)
        return dict(zip(rows, distances.tolist(), strict=True))

    pool = Pool()
    for run in range(options.runs):
        generator = torch.Generator().manual_seed(seed + run)
        _evolve(losses, pool, typeable, options, generator, budget // options.runs)
    return pool.best(keep, typeable)


def _evolve(
    losses: Callable[[list[Row]], dict[Row, float]],
    pool: Pool,
    typeable: Typeable,
    options: GeneticOptions,
    generator: torch.Generator,
    budget: int,
) -> None:
    """One population's generations."""
    length = min(options.length, typeable.room)
    elite = max(2, math.ceil(options.elite * options.population))
    people: dict[Row, float] = {}
    children = typeable.draw(min(options.population, budget), length, generator)
    for _ in range(options.generations):
        born = losses(children)
        budget -= len(born)
        pool.add(born)
        people |= born
        best = sorted(people, key=people.__getitem__)[:elite]
        people = {row: people[row] for row in best}
        room = min(options.population - len(people), budget)
        children = _breed(best, room, typeable, options, generator) if room > 0 else []
        if not children:
            break


def _breed(
    parents: list[Row],
    count: int,
    typeable: Typeable,
    options: GeneticOptions,
    generator: torch.Generator,
) -> list[Row]:
    """Up to `count` new sequences that can be typed."""
    pool = torch.tensor(parents)
    children: dict[Row, None] = {}
    known = set(parents)
    for _ in range(_REDRAWS):
        pairs = torch.randint(len(pool), (2, count), generator=generator)
        cut = torch.randint(1, pool.shape[1], (count, 1), generator=generator)
        crossed = torch.rand((count, 1), generator=generator) < options.crossover
        from_other = (torch.arange(pool.shape[1]) >= cut) & crossed
        rows = torch.where(from_other, pool[pairs[1]], pool[pairs[0]])
        mutated = torch.rand(rows.shape, generator=generator) < options.mutation
        fresh = typeable.tokens[
            torch.randint(len(typeable.tokens), rows.shape, generator=generator)
        ]
        bred = [tuple(row) for row in torch.where(mutated, fresh, rows).tolist()]
        new = [row for row in dict.fromkeys(bred) if row not in known]
        texts = typeable.texts(new)
        children |= {row: None for row, text in zip(new, texts, strict=True) if text is not None}
        known |= children.keys()
        if len(children) >= count:
            break
    return list(children)[:count]
