"""Measure a model, or one edit of it: pictures drawn, judged and counted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from edits.evaluation.drawing import Sampling, draw
from edits.evaluation.judge import Judge, Verdict
from edits.evaluation.prompts import PLAIN, Probe, object_probes, style_probes
from edits.evaluation.rates import mean_drop, rate, rates_by_class, worst_drop
from edits.method import Editor, EditSpec

JUDGE_FILE = "judge.safetensors"
SCORER_FILE = "scorer.safetensors"

Advance = Callable[[int], None]


@dataclass(frozen=True)
class EditSuite:
    """The pictures that an edit is judged by: first the target's, then every other class's."""

    attribute: str
    probes: tuple[Probe, ...]
    target_count: int

    @classmethod
    def of(cls, judge: Judge, spec: EditSpec, *, targets: int, each: int, seed: int) -> "EditSuite":
        """`targets` pictures of the concept and `each` of every other object and style.

        Raises ValueError if the judge does not know the concept.
        """
        objects, colours = judge.classes["object"], judge.classes["colour"]
        styles = judge.classes["style"][1:]
        others = [name for name in objects if name != spec.concept]
        other_styles = [name for name in styles if name != spec.concept]
        if spec.concept in styles:
            wanted = style_probes([spec.concept], objects, colours, each=targets, seed=seed)
            attribute = "style"
        elif spec.concept in objects:
            wanted = object_probes([spec.concept], colours, each=targets, seed=seed)
            attribute = "object"
        else:
            known = ", ".join((*objects, *styles))
            raise ValueError(f"the judge does not know {spec.concept!r}; it knows {known}")
        kept = (
            *object_probes(others, colours, each=each, seed=seed + 10_000),
            *style_probes(other_styles, others, colours, each=each, seed=seed + 20_000),
        )
        return cls(attribute, (*wanted, *kept), targets)


def model_suite(judge: Judge, *, each: int, seed: int) -> tuple[Probe, ...]:
    """Plain pictures of every object, and as many again spread over all styles."""
    objects, colours = judge.classes["object"], judge.classes["colour"]
    styles = judge.classes["style"][1:]
    styled = -(-each * len(objects) // len(styles))
    return (
        *object_probes(objects, colours, each=each, seed=seed),
        *style_probes(styles, objects[::-1], colours, each=styled, seed=seed + 20_000),
    )


def evaluate_model(
    pipeline: Any,
    judge: Judge,
    probes: Sequence[Probe],
    sampling: Sampling,
    *,
    progress: Advance = lambda _drawn: None,
) -> dict[str, Any]:
    """Rates of the unedited model by attribute, and the weakest class of each, as JSON."""
    verdicts = judge.look(
        draw(pipeline, pipeline.text_encoder, probes, sampling, progress=progress)
    )
    document: dict[str, Any] = {"images": len(probes), **sampling.document()}
    for attribute in ("object", "style", "colour"):
        classes = rates_by_class(probes, verdicts, attribute)
        weakest = min(classes, key=lambda name: classes[name].value)
        document[attribute] = {
            **rate(probes, verdicts, attribute).document(),
            "weakest": {"class": weakest, **classes[weakest].document()},
        }
    return document


def evaluate_edit(
    pipeline: Any,
    editor: Editor,
    judge: Judge,
    spec: EditSpec,
    suite: EditSuite,
    sampling: Sampling,
    *,
    progress: Advance = lambda _drawn: None,
) -> dict[str, Any]:
    """Rates before and after the edit, as JSON. Same prompts, seeds and judge on both sides."""

    def judged(encoder: nn.Module) -> list[Verdict]:
        return judge.look(draw(pipeline, encoder, suite.probes, sampling, progress=progress))

    before = judged(pipeline.text_encoder)
    after = judged(editor.apply(editor.compose([spec])))
    n = suite.target_count
    asked = suite.probes[:n]
    target = {
        "before": rate(asked, before[:n], suite.attribute).document(),
        "after": rate(asked, after[:n], suite.attribute).document(),
    }
    if suite.attribute == "style":
        target["object_after"] = rate(asked, after[:n], "object").document()
    kept = list(zip(suite.probes[n:], before[n:], after[n:], strict=True))
    plain = [entry for entry in kept if entry[0].wanted["style"] == PLAIN]
    styled = [entry for entry in kept if entry[0].wanted["style"] != PLAIN]
    return {
        "name": spec.name,
        "concept": spec.concept,
        **sampling.document(),
        "target": target,
        "other_objects": _kept(plain, "object"),
        "other_styles": _kept(styled, "style"),
    }


def _kept(entries: list[tuple[Probe, Verdict, Verdict]], attribute: str) -> dict[str, Any]:
    """What was not to change: rates on both sides, the mean drop of a class and the worst one."""
    probes = [probe for probe, _, _ in entries]
    before, after = [old for _, old, _ in entries], [new for _, _, new in entries]
    old_rates = rates_by_class(probes, before, attribute)
    new_rates = rates_by_class(probes, after, attribute)
    drop, worst = worst_drop(old_rates, new_rates, ())
    return {
        "before": rate(probes, before, attribute).document(),
        "after": rate(probes, after, attribute).document(),
        "mean_drop": round(mean_drop(old_rates, new_rates, ()), 4),
        "worst_drop": round(drop, 4),
        "worst_class": worst,
    }


def load_judge(model: str) -> Judge:
    """The judge beside the model. Raises FileNotFoundError if the model ships none."""
    path = Path(model) / JUDGE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"model {Path(model).name!r} ships no judge ({JUDGE_FILE})")
    return Judge.load(path)
