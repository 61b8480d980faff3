"""One loaded pipeline that plans a trace and draws its batches."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from edits.tracing.denoiser import Row, StepWindow, restoring
from edits.tracing.layout import Conditioning, Layout
from edits.tracing.layout import Unit as DenoiserUnit
from edits.tracing.options import TraceOptions
from edits.tracing.plan import (
    CLEAN,
    CORRUPTED,
    Batch,
    Conditions,
    PairKey,
    Plan,
    Task,
    Unit,
    denoiser_plan,
    text_plan,
    with_clean_rows,
)
from edits.tracing.positions import check_length, subject_positions
from edits.tracing.prompts import TracePair
from edits.tracing.scores import Scorer, pairs_by_key, score_all
from edits.tracing.text_encoder import MODULES, TextRuns, TextSite

_KEPT_UNITS = 4  # encodings that are kept: a batch spans few units


class Tracer:
    """Draws what a plan lists, in the order of any batch, and scores it.

    Raises TracePromptsInvalid, TraceSiteUnknown or TraceInvalid before any model runs.
    """

    def __init__(
        self,
        pipeline: Any,
        prompts: Mapping[str, Sequence[TracePair]],
        options: TraceOptions,
        scorers: Sequence[Scorer],
    ) -> None:
        self.layout = Layout.of(pipeline)
        self.options = options
        self.scorers = tuple(scorers)
        self._pairs = pairs_by_key(prompts)
        self._kept: OrderedDict[Unit, TextRuns] = OrderedDict()
        self._unconditional: Conditioning | None = None
        check(self.layout, prompts, options, scorers)

    @torch.inference_mode()
    def plan(self) -> Plan:
        """All pictures of the trace. Runs the text encoders, and the denoiser for one step."""
        seeds = tuple(range(self.options.seed, self.options.seed + self.options.seeds))
        draws, batch = self.options.draws, self.options.batch
        if self.options.target == "text-encoder":
            found = {key: self._text_conditions(key) for key in self._pairs}
            return text_plan(found, seeds=seeds, draws=draws, batch=batch)
        own = _own(CLEAN, CORRUPTED, *self._denoiser_sites())
        pairs = dict.fromkeys(self._pairs, own)
        if self.options.target == "cross-attention":  # corrupts nothing with noise
            return text_plan(pairs, seeds=seeds, draws=1, batch=batch)
        return denoiser_plan(pairs, seeds=seeds, draws=draws, batch=batch)

    def draw(self, batch: Batch, rows: int) -> list[list[float]]:
        """Scores (tasks, scorers) of one batch, drawn as `rows` pictures."""
        if self.options.target == "text-encoder":
            marked = [(task, True) for task in batch]
            conditioning = self._text_conditioning(batch)
            drawn = self._pictures(batch, conditioning, [Row() for _ in batch], rows)
        elif self.options.target == "unet":
            marked = list(with_clean_rows(batch))
            tasks = [task for task, _ in marked]
            parts = [
                runs.clean if task.condition == CLEAN else runs.corrupted
                for task in tasks
                for runs in [self._runs(task.unit)]
            ]
            clean_row = {t.unit: i for i, t in enumerate(tasks) if t.condition == CLEAN}
            restored = [
                Row(_restores(task, self.layout.denoiser_name), clean_row[task.unit])
                for task in tasks
            ]
            drawn = self._pictures(tasks, Conditioning.stack(parts), restored, rows)
        else:
            marked = [(task, True) for task in batch]
            drawn = self._substituted(batch, rows)
        scored = [
            (task, picture) for (task, wanted), picture in zip(marked, drawn, strict=True) if wanted
        ]
        pairs = [self._pairs[task.unit.key] for task, _ in scored]
        return score_all(self.scorers, [picture for _, picture in scored], pairs)

    def _text_conditions(self, key: PairKey) -> Conditions:
        """Every site of a pair, and for each the first one with the same embedding."""
        runs = self._runs(Unit(*key, self.options.seed, 0))
        sites = runs.sites(self.options.positions, self.options.modules or MODULES)
        restored = runs.restored([frozenset([site]) for site in sites])
        first = {runs.clean.row_bytes(0): CLEAN, runs.corrupted.row_bytes(0): CORRUPTED}
        drawn = {CLEAN: CLEAN, CORRUPTED: CORRUPTED}
        for row, site in enumerate(sites):
            drawn[str(site)] = first.setdefault(restored.row_bytes(row), str(site))
        return Conditions(drawn)

    def _text_conditioning(self, batch: Batch) -> Conditioning:
        """One row per task; tasks of a unit stand together."""
        rows: list[Conditioning] = []
        for unit in dict.fromkeys(task.unit for task in batch):
            runs = self._runs(unit)
            names = [task.condition for task in batch if task.unit == unit]
            sites = [name for name in names if name not in (CLEAN, CORRUPTED)]
            known = {CLEAN: runs.clean, CORRUPTED: runs.corrupted}
            if sites:
                restored = runs.restored([frozenset([TextSite.parse(name)]) for name in sites])
                known |= {name: restored.pick([row]) for row, name in enumerate(sites)}
            rows += [known[name] for name in names]
        return Conditioning.stack(rows)

    def _substituted(self, batch: Batch, rows: int) -> list[Any]:
        """Pictures for windows of cross-attention layers that read the anchor's caption."""
        order = [unit.path for unit in self._cross_attention]
        texts = list(dict.fromkeys(t for task in batch for t in self._texts(task)))
        encoded = self.layout.encode(texts)
        concept, lines = [], []
        for task in batch:
            own, anchor = (texts.index(text) for text in self._texts(task))
            start, stop = _window(task.condition, len(order))
            concept.append(own)
            lines.append(Row(replaced=frozenset(order[start:stop]), reads=anchor))
        return self._pictures(batch, encoded.pick(concept), lines, rows, replacement=encoded)

    def _pictures(
        self,
        tasks: Sequence[Task],
        conditioning: Conditioning,
        lines: Sequence[Row],
        rows: int,
        *,
        replacement: Conditioning | None = None,
    ) -> list[Any]:
        """One picture per task. Batches are filled up to `rows`: products of other shapes round
        differently, and equal runs must give equal bits."""
        filled = [*range(len(tasks)), *[len(tasks) - 1] * (rows - len(tasks))]
        options = self.options
        if self._unconditional is None:
            self._unconditional = self.layout.unconditional()
        with restoring(
            self.layout,
            [lines[i] for i in filled],
            window=StepWindow(options.first_step, options.last_step),
            branches=options.branches,
            replacement=replacement,
        ):
            pictures = self.layout.draw(
                conditioning.pick(filled),
                self._unconditional,
                seeds=[tasks[i].unit.seed for i in filled],
                steps=options.steps,
                guidance_scale=options.guidance_scale,
            )
        return list(pictures[: len(tasks)])

    def _denoiser_sites(self) -> tuple[str, ...]:
        if self.options.target == "cross-attention":
            count, window = len(self.layout.cross_attention), self.options.window
            return tuple(_window_name(i, i + window) for i in range(count - window + 1))
        asked = self.options.modules
        return tuple(
            f"{self.layout.denoiser_name}.{unit.path}"
            for unit in self._execution_order()
            if not asked or unit.kind in asked or unit.path in asked
        )

    def _execution_order(self) -> tuple[DenoiserUnit, ...]:
        caption = next(iter(self._pairs.values())).caption.text
        return self.layout.execution_order(
            self.layout.encode([caption]), self.options.guidance_scale
        )

    @cached_property
    def _cross_attention(self) -> tuple[DenoiserUnit, ...]:
        """Cross-attention modules in the order in which they run."""
        known = {unit.path for unit in self.layout.cross_attention}
        return tuple(unit for unit in self._execution_order() if unit.path in known)

    def _runs(self, unit: Unit) -> TextRuns:
        if unit not in self._kept:
            pair = self._pairs[unit.key]
            self._kept[unit] = TextRuns(
                self.layout,
                pair.caption,
                noise=self.options.noise,
                draw=f"{unit.seed}/{unit.draw}",
                param=_field(pair),
            )
            if len(self._kept) > _KEPT_UNITS:
                self._kept.popitem(last=False)
        return self._kept[unit]

    def _texts(self, task: Task) -> tuple[str, str]:
        pair = self._pairs[task.unit.key]
        return pair.caption.text, pair.anchor_caption


def check(
    layout: Layout,
    prompts: Mapping[str, Sequence[TracePair]],
    options: TraceOptions,
    scorers: Sequence[Scorer],
) -> None:
    """All that can be known to be wrong with a trace before a model runs; raises as Tracer does."""
    pairs = list(pairs_by_key(prompts).values())
    options.check_against(layout)
    for scorer in scorers:
        scorer.check(pairs)
    for pair in pairs:
        for encoder in layout.encoders:
            subject_positions(encoder, pair.caption, param=_field(pair))
            check_length(encoder, pair.anchor_caption, param=_field(pair, "anchor_caption"))


def _own(*names: str) -> Conditions:
    return Conditions({name: name for name in names})


def _field(pair: TracePair, name: str = "caption") -> str:
    return f"attributes.{pair.attribute}.pairs.{pair.index}.{name}"


def _restores(task: Task, component: str) -> frozenset[str]:
    if task.condition in (CLEAN, CORRUPTED):
        return frozenset()
    return frozenset([task.condition.removeprefix(f"{component}.")])


def _window_name(start: int, stop: int) -> str:
    return f"cross-attention[{start}:{stop}]"


def _window(name: str, count: int) -> tuple[int, int]:
    """Layers [start, stop) that read the anchor: none of a clean run, all of a corrupted one."""
    if name == CLEAN:
        return 0, 0
    if name == CORRUPTED:
        return 0, count
    start, stop = name.removeprefix("cross-attention[").removesuffix("]").split(":")
    return int(start), int(stop)
