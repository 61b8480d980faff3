"""An evaluation's document as Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edits.evaluation.figures import counted, exact, mean, method, percent, points, seen, worst

NOTES = (
    "Before and after share prompts and seeds.",
    "Rates carry Wilson's 95 % interval, drops Newcombe's for paired proportions (1998, method "
    "10), CLIPScores a percentile bootstrap of pictures (2000 resamples).",
    "A drop is before minus after, in points.",
)


def markdown_report(document: Mapping[str, Any]) -> str:
    """The whole report: figures, intervals, numbers of pictures, and the command behind them."""
    return "\n".join(_lines(document)) + "\n"


def headline(document: Mapping[str, Any]) -> str:
    """What was edited: "pistol -> toy, van gogh -> photo"."""
    return ", ".join(f"{edit['concept']} → {edit['anchor']}" for edit in document["edits"])


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {headline(document)}"
    yield ""
    provenance = document["provenance"]
    if "command" in provenance:
        yield from ("```sh", provenance["command"], "```", "")
    yield (
        f"{document['images']} pictures, {document['steps']} steps, "
        f"guidance {document['guidance_scale']:g}, seed {document['seed']}, "
        f"{document['seconds']:.0f} s."
    )
    yield from NOTES
    for edit in document["edits"]:
        yield f"{edit['name']}: {method(edit['method'])}."
    yield ""
    if document["targets"]:
        yield "## What is left of the concept"
        yield ""
        several = len(document["edits"]) > 1
        yield from _table(
            (*("edit",) * several, "asked for", "class", "before", "after", "left", "then seen"),
            [
                (
                    *(group["edit"],) * several,
                    group["title"],
                    _counts(group)["class"],
                    percent(_counts(group)["before"]),
                    percent(_counts(group)["after"]),
                    counted(group["left"]),
                    seen(group["seen"]),
                )
                for group in document["targets"]
            ],
        )
    if document["retained"]:
        yield "## What was to stay"
        yield ""
        yield from _table(
            ("what", "judged", "before", "after", "n", "drop in points", "worst class"),
            [
                (
                    group["title"],
                    group["attribute"],
                    percent(group["before"]),
                    percent(group["after"]),
                    str(group["n"]),
                    points(group["drop"]),
                    worst(group["worst_class"]) or "none fell",
                )
                for group in document["retained"]
            ],
        )
    if document["clip_score"]:
        yield "## CLIPScore"
        yield ""
        yield from _table(
            ("pictures", "before", "after", "difference", "n"),
            [
                (
                    name,
                    mean(change["before"]),
                    mean(change["after"]),
                    mean(change["difference"]),
                    str(change["difference"]["n"]),
                )
                for name, change in document["clip_score"].items()
            ],
        )
    yield "## Empty prompt"
    yield ""
    drift = document["empty_prompt"]
    pictures = drift["pictures"]
    yield (
        f"Largest difference of the embedding {exact(drift['max_abs'])}, relative "
        f"{exact(drift['relative'])}; {pictures['identical']} of {pictures['n']} pictures "
        f"identical, largest difference {pictures['max']} of 255."
    )
    yield ""
    yield from _judge(document["judge"])


def _counts(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a target group is scored by: a fact's anchor, otherwise the removed class."""
    scored: Mapping[str, Any] = group[group["scored_by"]]
    return scored


def _judge(judge: Mapping[str, Any]) -> Iterator[str]:
    yield "## The judge's own error"
    yield ""
    yield (
        "Before the edit, what the judge saw otherwise than asked for is its own error and the "
        "model's together."
    )
    yield ""
    rows = [
        ("unedited drawing", attribute, percent(part), counted(part), _wrong(part["classes"]))
        for attribute, part in judge["unedited"].items()
    ]
    held_out = judge["held_out"]
    if held_out:
        rows += [
            (
                f"held-out renders, {view}",
                attribute,
                percent(part),
                counted(part),
                _wrong(part["classes"]),
            )
            for view, attributes in held_out["views"].items()
            for attribute, part in attributes.items()
        ]
    yield from _table(("pictures", "judged", "wrong", "count", "classes with errors"), rows)
    if held_out:
        yield f"Held-out renders: `{held_out['command']}`, seed {held_out['seed']}."
    else:
        yield "The model ships no figures of its judge on held-out pictures."


def _wrong(classes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {counted(rate)}" for name, rate in classes.items() if rate["hits"])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join('---' for _ in head)} |"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""
