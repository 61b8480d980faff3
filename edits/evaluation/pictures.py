"""The gate's pictures: a few of the target, a few of everything else, judged before publishing."""

import copy
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from edits.errors import GateRefused, QuickFixError
from edits.evaluation.drawing import Sampling
from edits.evaluation.gate import PictureFigures, Pictures
from edits.evaluation.judge import Judge
from edits.evaluation.measure import measure
from edits.evaluation.report import JUDGE_FILE, load_judge
from edits.evaluation.result import EvaluationResult
from edits.evaluation.subject import subject_of
from edits.evaluation.suite import Suite, edit_suite
from edits.method import EditSpec, with_components
from edits.model_card import ModelDefaults

# By name and alias what is to go; plain objects, its neighbours and styles what is to stay.
_KINDS = ("name", "alias", "objects", "neighbours", "styles")
_SEED = 7_700_000


def picture_check(pipeline: Any, defaults: ModelDefaults, model: str) -> Pictures | None:
    """A check that draws with this pipeline; None if the model folder ships no judge.

    The pipeline's modules are shared and only run, its scheduler is copied: it may serve meanwhile.
    """
    if not (Path(model) / JUDGE_FILE).is_file():
        return None
    judge = load_judge(model)
    sampling = Sampling(defaults.steps, defaults.guidance_scale)
    one_at_a_time = threading.Lock()

    def check(
        modules: Mapping[str, nn.Module], spec: EditSpec, others: Sequence[EditSpec], count: int
    ) -> PictureFigures:
        suite = _suite(pipeline, judge, spec, others, count)
        with one_at_a_time:
            own = _own(pipeline)
            return _figures(measure(own, with_components(own, modules), judge, suite, sampling))

    return check


def _suite(
    pipeline: Any, judge: Judge, spec: EditSpec, others: Sequence[EditSpec], count: int
) -> Suite:
    """Targets of `spec` alone; what the other edits remove is not among what is to stay."""
    try:
        subject_of(judge, spec)
    except QuickFixError as error:
        raise GateRefused(
            f"pictures are asked for, and {error.message}", param="spec.accept.images"
        ) from None
    known = [spec, *(other for other in others if _is_known(judge, other))]
    suite = edit_suite(pipeline, judge, known, targets=count, each=1, seed=_SEED, kinds=_KINDS)
    groups = [g for g in suite.groups if g.subject is None or g.subject.spec == spec]
    return replace(suite, groups=tuple(groups))


def _is_known(judge: Judge, spec: EditSpec) -> bool:
    try:
        subject_of(judge, spec)
    except QuickFixError:
        return False
    return True


def _figures(result: EvaluationResult) -> PictureFigures:
    rates = [group.failed.value for group in result.targets]
    document = {
        "targets": {group.group.name: group.failed.document() for group in result.targets},
        "retained": {group.group.name: group.change.document() for group in result.retained},
    }
    targets = (f"{g.group.title} {g.failed.hits} of {g.failed.count} left" for g in result.targets)
    retained = (
        f"{g.group.title} {g.change.before.hits} to {g.change.after.hits} of {g.change.after.count}"
        for g in result.retained
    )
    words = ", ".join((*targets, *retained))
    return PictureFigures(max(rates, default=0.0), max(0.0, result.max_drop), words, document)


def _own(pipeline: Any) -> Any:
    own = copy.copy(pipeline)
    own.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    own.tokenizer = copy.deepcopy(pipeline.tokenizer)
    return own
