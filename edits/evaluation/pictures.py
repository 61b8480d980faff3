"""The gate's pictures: a few of the target, a few of everything else, judged before publishing."""

import copy
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from edits.evaluation.drawing import Sampling
from edits.evaluation.gate import PictureFigures, Pictures
from edits.evaluation.judge import Judge
from edits.evaluation.measure import measure
from edits.evaluation.report import JUDGE_FILE, load_judge
from edits.evaluation.suite import edit_suite
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

    def check(modules: Mapping[str, nn.Module], spec: EditSpec, count: int) -> PictureFigures:
        with one_at_a_time:
            return _figures(_own(pipeline), modules, judge, spec, count, sampling)

    return check


def _figures(
    pipeline: Any,
    modules: Mapping[str, nn.Module],
    judge: Judge,
    spec: EditSpec,
    count: int,
    sampling: Sampling,
) -> PictureFigures:
    suite = edit_suite(pipeline, judge, [spec], targets=count, each=1, seed=_SEED, kinds=_KINDS)
    result = measure(pipeline, with_components(pipeline, modules), judge, suite, sampling)
    rates = [group.failed.value for group in result.targets]
    document = {
        "targets": {group.group.name: group.failed.document() for group in result.targets},
        "retained": {group.group.name: group.change.document() for group in result.retained},
    }
    return PictureFigures(max(rates, default=0.0), max(0.0, result.max_drop), document)


def _own(pipeline: Any) -> Any:
    own = copy.copy(pipeline)
    own.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    own.tokenizer = copy.deepcopy(pipeline.tokenizer)
    return own
