"""Measure one edit: pictures before and after it, judged and compared."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from edits.evaluation.drawing import draw
from edits.evaluation.judge import Judge
from edits.evaluation.prompts import Probe, object_probes, style_probes
from edits.evaluation.rates import mean_drop, rate, rates_by_class, worst_drop
from edits.method import Editor, EditSpec

JUDGE_FILE = "judge.safetensors"
SCORER_FILE = "scorer.safetensors"


@dataclass(frozen=True)
class Suite:
    """The pictures that an evaluation draws: the target's first, then every other class's."""

    attribute: str
    target: str
    probes: tuple[Probe, ...]
    target_count: int

    @classmethod
    def of(cls, judge: Judge, spec: EditSpec, *, targets: int, each: int, seed: int) -> "Suite":
        """`targets` pictures of the concept and `each` of every other object and style.

        Raises ValueError if the judge does not know the concept.
        """
        objects, colours = judge.classes["object"], judge.classes["colour"]
        styles = judge.classes["style"][1:]
        if spec.concept in styles:
            wanted = style_probes([spec.concept], objects, colours, each=targets, seed=seed)
            attribute = "style"
        elif spec.concept in objects:
            wanted = object_probes([spec.concept], colours, each=targets, seed=seed)
            attribute = "object"
        else:
            known = ", ".join((*objects, *styles))
            raise ValueError(f"the judge does not know {spec.concept!r}; it knows {known}")
        others = [name for name in objects if name != spec.concept]
        other_styles = [name for name in styles if name != spec.concept]
        kept = (
            *object_probes(others, colours, each=each, seed=seed + 10_000),
            *style_probes(other_styles, others, colours, each=each, seed=seed + 20_000),
        )
        return cls(attribute, spec.concept, (*wanted, *kept), targets)


def evaluate(
    pipeline: Any,
    editor: Editor,
    judge: Judge,
    spec: EditSpec,
    suite: Suite,
    *,
    steps: int,
    guidance_scale: float,
    progress: Callable[[int], None] = lambda _drawn: None,
) -> dict[str, Any]:
    """Rates before and after the edit, as JSON. Same prompts, seeds and judge on both sides."""
    composition = editor.compose([spec])

    def judged(encoder: nn.Module) -> list[Any]:
        pictures = draw(
            pipeline,
            encoder,
            suite.probes,
            steps=steps,
            guidance_scale=guidance_scale,
            progress=progress,
        )
        return judge.look(pictures)

    before, after = judged(pipeline.text_encoder), judged(editor.apply(composition))
    n = suite.target_count
    kept = suite.probes[n:]
    document: dict[str, Any] = {
        "name": spec.name,
        "concept": spec.concept,
        "target": {
            "before": rate(suite.probes[:n], before[:n], suite.attribute).document(),
            "after": rate(suite.probes[:n], after[:n], suite.attribute).document(),
        },
        "steps": steps,
        "guidance_scale": guidance_scale,
    }
    if suite.attribute == "style":
        document["target"]["object_after"] = rate(suite.probes[:n], after[:n], "object").document()
    for attribute, plain in (("object", False), ("style", True)):
        chosen = [i for i, p in enumerate(kept) if (p.wanted["style"] != "photo") == plain]
        probes = [kept[i] for i in chosen]
        old = rates_by_class(probes, [before[n + i] for i in chosen], attribute)
        new = rates_by_class(probes, [after[n + i] for i in chosen], attribute)
        drop, worst = worst_drop(old, new, ())
        document[f"other_{attribute}s"] = {
            "before": rate(probes, [before[n + i] for i in chosen], attribute).document(),
            "after": rate(probes, [after[n + i] for i in chosen], attribute).document(),
            "mean_drop": round(mean_drop(old, new, ()), 4),
            "worst_drop": round(drop, 4),
            "worst_class": worst,
        }
    return document


def load_judge(model: str) -> Judge:
    """The judge beside the model. Raises FileNotFoundError if the model ships none."""
    path = Path(model) / JUDGE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"model {Path(model).name!r} ships no judge ({JUDGE_FILE})")
    return Judge.load(path)
