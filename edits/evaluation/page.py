"""An evaluation as one HTML page that needs no other file: figures, intervals and pictures."""

import base64
import io
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined, Template
from PIL.Image import Image

from edits.evaluation import figures
from edits.evaluation.markdown import NOTES, headline
from edits.evaluation.result import EvaluationResult, GroupResult, PicturePair

MAX_PAIRS = 240  # of one page: about 2 MB of pictures at 64 pixels


def html_report(document: Mapping[str, Any], result: EvaluationResult) -> str:
    """The page of an `evaluation_document` with the pictures of the result it was made from."""
    galleries, left_out = _galleries(result)
    return _template().render(
        document=document,
        headline=headline(document),
        notes=NOTES,
        figures=figures,
        galleries=galleries,
        left_out=left_out,
    )


def _galleries(result: EvaluationResult) -> tuple[list[dict[str, Any]], int]:
    """Groups in the order of how badly they came out, each with its worst pictures first."""
    order = sorted(result.groups, key=lambda group: (group.group.role != "target", -group.badness))
    galleries, room, left_out = [], MAX_PAIRS, 0
    several = len(result.suite.subjects) > 1
    for group in order:
        pairs = group.pairs[:room]
        room -= len(pairs)
        left_out += not pairs
        if pairs:
            edit = f"{group.group.subject.spec.name}: " if several and group.group.subject else ""
            galleries.append(
                {
                    "title": edit + group.group.title,
                    "role": group.group.role,
                    "n": len(group.group.probes),
                    "summary": _summary(group),
                    "pairs": [_tile(pair, group) for pair in pairs],
                }
            )
    return galleries, left_out


def _summary(group: GroupResult) -> str:
    if group.group.role == "target":
        return f"{group.failed.hits} of {group.failed.count} left"
    change = group.change
    return f"{change.lost} of {change.count} lost, {change.gained} gained"


def _tile(pair: PicturePair, group: GroupResult) -> dict[str, Any]:
    counted = pair.probe.wanted[group.group.attribute]
    subject = group.group.subject
    right = pair.classes[1] == counted
    failed = (right != subject.is_fact) if subject else (pair.classes[0] == counted and not right)
    return {
        "prompt": visible(pair.probe.prompt),
        "seed": pair.probe.seed,
        "failed": failed,
        "sides": [
            {"side": side, "picture": _inline(picture), "class": seen, "share": round(100 * share)}
            for side, picture, seen, share in zip(
                ("before", "after"), pair.pictures, pair.classes, pair.probabilities, strict=True
            )
        ],
        "counted": counted,
    }


def visible(prompt: str) -> str:
    """The prompt with its invisible characters spelled out, as "pis<U+200B>tol"."""
    return "".join(c if c.isprintable() else f"<U+{ord(c):04X}>" for c in prompt)


def _inline(picture: Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", lossless=True, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


@cache
def _template() -> Template:
    source = resources.files("edits.evaluation") / "report.html"
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source.read_text(encoding="utf-8"))
