"""A whole trace: plan, draw what is missing, estimate, write the result and its pictures."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers

from edits.errors import TraceConflict
from edits.tracing.causal import By, Verdict, verdict
from edits.tracing.effects import Effects, agreement, effects
from edits.tracing.executors import Executor, TraceJob
from edits.tracing.heatmaps import module_heatmap, text_heatmap, window_heatmap
from edits.tracing.identity import pipeline_digest, trace_identity
from edits.tracing.journal import FILE_NAME as JOURNAL_NAME
from edits.tracing.journal import Journal
from edits.tracing.plan import Plan
from edits.tracing.progress import FILE_NAME as PLAN_NAME
from edits.tracing.progress import remove_plan, write_plan
from edits.tracing.result import (
    ARRAYS_NAME,
    FILE_NAME,
    TraceResult,
    attribute_document,
    read_result,
    write_result,
)
from edits.tracing.tracer import Tracer

Advance = Callable[[int], None]
_HEATMAPS = {
    "text-encoder": text_heatmap,
    "unet": module_heatmap,
    "cross-attention": window_heatmap,
}


def run_trace(
    job: TraceJob,
    tracer: Tracer,
    executor: Executor,
    out: Path,
    *,
    on_plan: Callable[[int], None] = lambda _pictures: None,
    advance: Advance = lambda _pictures: None,
) -> TraceResult:
    """Draw what `out` does not have yet, and write the result there.

    `on_plan` hears how many pictures the trace has, `advance` how many more are done. A finished
    trace in `out` is answered as it is. Raises TraceConflict if `out` holds another trace.
    """
    digest = pipeline_digest(tracer.layout)
    identity = trace_identity(job.prompts, job.options, digest, tracer.scorers, dtype=job.dtype)
    if (out / FILE_NAME).exists():
        result, _ = read_result(out)
        if result.identity != identity:
            raise TraceConflict(
                f"{out.name} holds a trace with other options, prompts or model; "
                "choose another --out",
                param="out",
            )
        for name in (JOURNAL_NAME, PLAN_NAME):  # a kill came between the result and their removal
            (out / name).unlink(missing_ok=True)
        return result
    with Journal(out, identity) as journal:
        plan = tracer.plan()
        write_plan(out, plan.pictures)
        on_plan(plan.pictures)
        advance(sum(len(plan.batches[number]) for number in journal.scores))
        waiting = [
            (number, batch)
            for number, batch in enumerate(plan.batches)
            if number not in journal.scores
        ]
        started = time.perf_counter()
        for number, scores in executor.run(waiting, plan.rows):
            finished = time.perf_counter()
            journal.add(number, scores, finished - started)
            started = finished
            advance(len(scores))
        result = _write(job, tracer, plan, journal, identity, digest, out)
        journal.remove()
        remove_plan(out)
    return result


def forget(out: Path) -> None:
    """Delete a trace's document, arrays and journal in `out`, and no other file."""
    for name in (FILE_NAME, ARRAYS_NAME, JOURNAL_NAME, PLAN_NAME):
        (out / name).unlink(missing_ok=True)


def pooled(
    arrays: Mapping[str, np.ndarray], conditions: Mapping[str, Sequence[str]]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The pairs of all attributes in one array, NaN where an attribute lacks a condition."""
    names = tuple(dict.fromkeys(name for part in conditions.values() for name in part))
    parts = []
    for attribute, array in arrays.items():
        part = np.full((*array.shape[:3], len(names), array.shape[4]), np.nan)
        part[..., [names.index(name) for name in conditions[attribute]], :] = array
        parts.append(part)
    return np.concatenate(parts), names


def pooled_verdict(result: TraceResult, arrays: Mapping[str, np.ndarray]) -> Verdict | None:
    """Which layer of the text encoder an edit should change, over all attributes.

    By the first scorer of the trace: the judge, where the model has one.
    """
    conditions = {name: part.conditions for name, part in result.attributes.items()}
    scores, names = pooled(arrays, conditions)
    resamples = result.options.resamples
    found = effects(scores[..., 0], names, resamples=resamples)
    return verdict(scores[..., 0], names, found, resamples=resamples, editable_only=True)


def verdict_document(found: Verdict) -> dict[str, Any]:
    """A verdict as JSON."""
    return {
        "site": found.site,
        "effect": found.effect.document(),
        "runner_up": found.runner_up,
        "difference": found.difference.document() if found.difference else None,
        "excludes_zero": found.excludes_zero,
        "excludes_runner_up": found.excludes_runner_up,
        "causal": found.is_causal,
    }


def _write(
    job: TraceJob,
    tracer: Tracer,
    plan: Plan,
    journal: Journal,
    identity: str,
    digest: str,
    out: Path,
) -> TraceResult:
    names = [scorer.name for scorer in tracer.scorers]
    arrays = plan.assemble(journal.scores, len(names))
    conditions = {name: plan.conditions(name) for name in job.prompts}
    documents = estimate(job, names, conditions, arrays, out)
    environment: dict[str, str | int] = {
        "device": job.device,
        "dtype": job.dtype,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "transformers": transformers.__version__,
    }
    document = {
        "identity": identity,
        "model": {
            "name": Path(job.model).name,
            "pipeline": type(tracer.layout.pipeline).__name__,
            "digest": digest,
        },
        "options": job.options.model_dump(mode="json"),
        "environment": environment,
        "scorers": names,
        "pictures": plan.pictures,
        "seconds": round(sum(journal.seconds.values()), 1),
        "attributes": documents,
    }
    return write_result(out, document, arrays)


def estimate(
    job: TraceJob,
    scorers: Sequence[str],
    conditions: Mapping[str, Sequence[str]],
    arrays: Mapping[str, np.ndarray],
    out: Path,
) -> dict[str, dict[str, Any]]:
    """Effects, verdicts and agreement of each attribute as JSON; draws the heat maps into `out`."""
    resamples = job.options.resamples
    by: By = "direct" if job.options.target == "cross-attention" else "indirect"
    documents = {}
    for attribute, pairs in job.prompts.items():
        names = conditions[attribute]
        found: dict[str, Effects] = {}
        verdicts = {}
        for column, scorer in enumerate(scorers):
            scores = arrays[attribute][..., column]
            found[scorer] = effects(scores, names, resamples=resamples)
            best = verdict(scores, names, found[scorer], by=by, resamples=resamples)
            if best is not None:
                verdicts[scorer] = verdict_document(best)
            title = f"{attribute}, {Path(job.model).name}, by {scorer}"
            picture = out / f"{attribute}_{scorer}.png"
            _HEATMAPS[job.options.target](picture, title, found[scorer])
        both = agreement(arrays[attribute], resamples=resamples) if len(scorers) == 2 else None
        documents[attribute] = attribute_document(
            [pair.document() for pair in pairs], names, found, verdicts, both
        )
    return documents
