"""What `quickfix evaluate` writes: the unedited model's rates, and the report of an evaluation."""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edits.evaluation.document import evaluation_document
from edits.evaluation.drawing import Sampling
from edits.evaluation.judge import Judge
from edits.evaluation.judge_card import JudgeCard
from edits.evaluation.markdown import markdown_report
from edits.evaluation.measure import measure
from edits.evaluation.observe import observe
from edits.evaluation.page import html_report
from edits.evaluation.prompts import Probe, object_probes, style_probes
from edits.evaluation.rates import rate, rates_by_class
from edits.evaluation.result import EvaluationResult
from edits.evaluation.scorer import ClipScorer
from edits.evaluation.suite import Suite
from edits.method import Editor, with_components

JUDGE_FILE = "judge.safetensors"
SCORER_FILE = "scorer.safetensors"

Advance = Callable[[int], None]


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
    seen = observe(pipeline, probes, sampling, judge, progress=progress)
    verdicts = [seen[probe.key].verdict for probe in probes]
    document: dict[str, Any] = {"images": len(probes), **sampling.document()}
    for attribute in ("object", "style", "colour"):
        classes = rates_by_class(probes, verdicts, attribute)
        weakest = min(classes, key=lambda name: classes[name].value)
        document[attribute] = {
            **rate(probes, verdicts, attribute).document(),
            "weakest": {"class": weakest, **classes[weakest].document()},
        }
    return document


def evaluate_edits(
    pipeline: Any,
    editor: Editor,
    judge: Judge,
    suite: Suite,
    sampling: Sampling,
    *,
    model: str,
    progress: Advance = lambda _drawn: None,
) -> tuple[EvaluationResult, dict[str, str]]:
    """Apply the suite's edits together and measure them; the scorer and the judge's card of `model`
    are used if it ships them.

    Answers the result, and which weights and libraries made it. Raises EditRefused.
    """
    composition = editor.compose([subject.spec for subject in suite.subjects])
    edited = with_components(pipeline, editor.apply(composition))
    result = measure(
        pipeline,
        edited,
        judge,
        suite,
        sampling,
        scorer=load_scorer(model),
        card=JudgeCard.read(Path(model) / JUDGE_FILE),
        progress=progress,
    )
    libraries = ("torch", "diffusers", "transformers")
    return result, {
        "model": Path(model).name,
        "base": editor.fingerprint,
        "edited weights": composition.digest,
        "libraries": ", ".join(f"{name} {version(name)}" for name in libraries),
    }


def write_report(
    result: EvaluationResult, folder: Path, provenance: Mapping[str, Any] | None = None
) -> tuple[Path, ...]:
    """Write report.json, report.md and report.html, which needs no other file; answer their paths.

    The folder is made if it is not there. Raises OSError if a file cannot be written.
    """
    document = evaluation_document(result, provenance)
    texts = {
        "report.json": json.dumps(document, indent=1) + "\n",
        "report.md": markdown_report(document),
        "report.html": html_report(document, result),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return tuple(folder / name for name in texts)


def load_judge(model: str) -> Judge:
    """The judge beside the model. Raises FileNotFoundError if the model ships none."""
    path = Path(model) / JUDGE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"model {Path(model).name!r} ships no judge ({JUDGE_FILE})")
    return Judge.load(path)


def load_scorer(model: str) -> ClipScorer | None:
    """The CLIP scorer beside the model, None if it ships none."""
    path = Path(model) / SCORER_FILE
    return ClipScorer.load(path) if path.is_file() else None
