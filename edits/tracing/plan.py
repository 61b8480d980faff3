"""Which pictures a trace draws, and in which batches: fixed before the first one is drawn.

Every batch stands alone, so batches can be drawn in any order, on any machine, and again after a
kill. Conditions of a pair that give the same embedding bit for bit are drawn once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

CLEAN, CORRUPTED = "clean", "corrupted"

# Batches are filled up to a multiple of this. Matrix kernels take rows in small blocks and round
# what is left over differently, so in other batches equal rows would not have equal bits.
ROW_MULTIPLE = 8

PairKey = tuple[str, int]  # attribute, index of the pair


@dataclass(frozen=True, order=True)
class Unit:
    """One pair under one seed and one draw of the noise."""

    attribute: str
    pair: int
    seed: int
    draw: int

    @property
    def key(self) -> PairKey:
        """The pair."""
        return (self.attribute, self.pair)


@dataclass(frozen=True, order=True)
class Task:
    """One picture: a unit under a condition."""

    unit: Unit
    condition: str


Batch = tuple[Task, ...]


@dataclass(frozen=True)
class Conditions:
    """The conditions of one pair; `drawn` maps each to the one that is drawn in its place."""

    drawn: Mapping[str, str]

    @property
    def distinct(self) -> tuple[str, ...]:
        """The conditions that need a picture of their own, in order."""
        return tuple(dict.fromkeys(self.drawn.values()))


@dataclass(frozen=True)
class Plan:
    """Batches, and how their scores become one array per attribute."""

    pairs: Mapping[PairKey, Conditions]
    seeds: tuple[int, ...]
    draws: int
    batches: tuple[Batch, ...]
    rows: int  # pictures of one batch, helpers and padding included

    @property
    def pictures(self) -> int:
        """How many pictures are scored."""
        return sum(len(batch) for batch in self.batches)

    def conditions(self, attribute: str) -> tuple[str, ...]:
        """All conditions of an attribute's pairs: clean, corrupted, then sites as first met."""
        names = dict.fromkeys((CLEAN, CORRUPTED))
        for (owner, _), conditions in self.pairs.items():
            if owner == attribute:
                names |= dict.fromkeys(conditions.drawn)
        return _sorted_sites(tuple(names))

    def assemble(
        self, scores: Mapping[int, Sequence[Sequence[float]]], scorers: int
    ) -> dict[str, np.ndarray]:
        """Scores by batch to (pairs, seeds, draws, conditions, scorers) by attribute; NaN: none."""
        by_task = {
            task: row
            for number, rows in scores.items()
            for task, row in zip(self.batches[number], rows, strict=True)
        }
        arrays = {}
        for attribute in dict.fromkeys(owner for owner, _ in self.pairs):
            names = self.conditions(attribute)
            pairs = [index for owner, index in self.pairs if owner == attribute]
            shape = (len(pairs), len(self.seeds), self.draws, len(names), scorers)
            array = np.full(shape, np.nan)
            for i, pair in enumerate(pairs):
                drawn = self.pairs[attribute, pair].drawn
                for j, seed in enumerate(self.seeds):
                    for draw in range(self.draws):
                        for k, name in enumerate(names):
                            if name in drawn:
                                at = 0 if drawn[name] == CLEAN else draw
                                unit = Unit(attribute, pair, seed, at)
                                array[i, j, draw, k] = by_task[Task(unit, drawn[name])]
            arrays[attribute] = array
        return arrays


def text_plan(
    pairs: Mapping[PairKey, Conditions], *, seeds: Sequence[int], draws: int, batch: int
) -> Plan:
    """Batches of at most `batch` pictures, all of one size but the last."""
    tasks = [
        Task(unit, name)
        for unit in _units(pairs, seeds, draws)
        for name in pairs[unit.key].distinct
        if unit.draw == 0 or name != CLEAN
    ]
    count = -(-len(tasks) // batch)
    size = -(-len(tasks) // count)
    batches = tuple(tuple(tasks[i : i + size]) for i in range(0, len(tasks), size))
    return Plan(dict(pairs), tuple(seeds), draws, batches, _filled(size))


def denoiser_plan(
    pairs: Mapping[PairKey, Conditions], *, seeds: Sequence[int], draws: int, batch: int
) -> Plan:
    """Batches of at most `batch` pictures, in each of which every unit has a clean row.

    A clean row whose score is known from another batch is drawn, and is no task.
    """
    batches: list[Batch] = []
    current: list[Task] = []
    room = batch
    for unit in _units(pairs, seeds, draws):
        waiting = list(pairs[unit.key].distinct)
        if unit.draw:
            waiting.remove(CLEAN)
        while waiting:
            helper = 0 if waiting[0] == CLEAN else 1
            if room < helper + 1 or (room < 2 and len(waiting) > 1):
                batches.append(tuple(current))
                current, room = [], batch
            taken = waiting[: room - helper]
            waiting = waiting[len(taken) :]
            current += [Task(unit, name) for name in taken]
            room -= len(taken) + helper
    if current:
        batches.append(tuple(current))
    size = max(len(list(with_clean_rows(part))) for part in batches)
    return Plan(dict(pairs), tuple(seeds), draws, tuple(batches), _filled(size))


def with_clean_rows(batch: Iterable[Task]) -> Iterator[tuple[Task, bool]]:
    """The rows of a denoiser's batch: its tasks (True), and clean rows that only lend (False)."""
    unit = None
    for task in batch:
        if task.unit != unit:
            unit = task.unit
            if task.condition != CLEAN:
                yield Task(unit, CLEAN), False
        yield task, True


def _filled(size: int) -> int:
    """`size` up to a multiple of ROW_MULTIPLE."""
    return -(-size // ROW_MULTIPLE) * ROW_MULTIPLE


def _units(pairs: Mapping[PairKey, Conditions], seeds: Sequence[int], draws: int) -> Iterator[Unit]:
    for attribute, pair in pairs:
        for seed in seeds:
            for draw in range(draws):
                yield Unit(attribute, pair, seed, draw)


def _sorted_sites(names: tuple[str, ...]) -> tuple[str, ...]:
    """Sites of a longer subject come last as they are met: put `subject N` behind `subject N-1`."""
    place = {name: number for number, name in enumerate(names)}

    def key(name: str) -> tuple[float, str]:
        path, _, position = name.partition("@subject ")
        if position and int(position) > 1:
            return (place.get(f"{path}@subject 1", place[name]) + int(position) / 1000, name)
        return (float(place[name]), name)

    return tuple(sorted(names, key=key))
