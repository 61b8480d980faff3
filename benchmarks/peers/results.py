"""From cells to figures: rates, intervals, the JSON, the table and the plot.

The score is the harmonic mean of (1 - target rate) and the retained accuracy relative to the
unedited model's on the same prompts and seeds. Retained accuracy is the mean of three rates, so
that no group counts more for having more pictures: objects on plain pictures, styles on styled
ones, colours on all.

Intervals combine Wilson's bounds of the rates, as Newcombe's of differences do (MOVER, Zou and
Donner 2008): a bootstrap over pictures that are all right has no width, and says that a hundred
prove what a million would.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from benchmarks.peers.cells import GROUPS, Cell
from benchmarks.peers.methods import Method
from edits.evaluation.rates import Rate

UNEDITED = "unedited"
_CURVES = (
    ("score", "harmonic mean of removal and retention"),
    ("target_rate", "target rate"),
    ("retained", "retained, relative to the unedited model"),
)


def figures(cell: Cell, unedited: Cell) -> dict[str, Any]:
    """All figures of a cell as JSON; the two cells have the same pictures."""
    target = _rate(cell.target)
    kept = {name: _rate(cell.kept[name]) for name in GROUPS}
    before = {name: _rate(unedited.kept[name]).value for name in GROUPS}
    return {
        "method": cell.method,
        "count": cell.count,
        "target": target.document(),
        "target_unedited": _rate(unedited.target).document(),
        **estimates(target, tuple(kept.values()), sum(before.values()) / len(before)),
        "groups": {
            name: {**kept[name].document(), "unedited": round(before[name], 4)} for name in GROUPS
        },
        "worst": _worst(cell, unedited),
        "target_by_concept": _by_class(cell.classes["target"], cell.target),
        "seconds": round(cell.seconds, 3),
    }


def estimates(target: Rate, kept: Sequence[Rate], unedited: float) -> dict[str, dict[str, float]]:
    """`retained` and `score` with 95 per cent intervals, as JSON.

    unedited: what the unedited model has in place of the mean of `kept`, taken as it is. The rates
    count as independent, though colours are judged on the pictures of the other groups.
    """

    def put(rates: Sequence[float]) -> dict[str, float]:
        removed = 1 - rates[0]
        retained = sum(rates[1:]) / len(kept) / max(unedited, 1e-9)
        capped = min(retained, 1.0)
        total = removed + capped
        return {"retained": retained, "score": 2 * removed * capped / total if total else 0.0}

    values = [rate.value for rate in (target, *kept)]
    # What is left of the concept makes both worse as it grows, what is kept as it falls.
    worse = [target.interval[1], *(rate.interval[0] for rate in kept)]
    better = [target.interval[0], *(rate.interval[1] for rate in kept)]
    middle = put(values)

    def farthest(name: str, bounds: Sequence[float]) -> float:
        return math.hypot(
            *(
                put([*values[:i], bound, *values[i + 1 :]])[name] - middle[name]
                for i, bound in enumerate(bounds)
            )
        )

    return {
        name: {
            "value": round(value, 4),
            "low": round(max(0.0, value - farthest(name, worse)), 4),
            "high": round(value + farthest(name, better), 4),
        }
        for name, value in middle.items()
    }


def document(
    cells: Sequence[Cell], methods: Mapping[str, Method], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole comparison as JSON: options, methods and figures, without the single pictures."""
    unedited = {cell.count: cell for cell in cells if cell.method == UNEDITED}
    return {
        "options": dict(options),
        "methods": {
            name: {"settings": method.settings, "source": method.source}
            for name, method in methods.items()
        },
        "cells": [figures(cell, unedited[cell.count]) for cell in cells],
    }


def markdown(found: Mapping[str, Any]) -> str:
    """One table: a row for each method and count."""
    lines = [
        "| method | concepts | target rate | retained | objects | styles | colours | score "
        "| worst class | s |",
        "| --- | ---: | --- | --- | ---: | ---: | ---: | --- | --- | ---: |",
    ]
    for cell in found["cells"]:
        groups = [_percent(cell["groups"][name]["rate"]) for name in GROUPS]
        worst = cell["worst"]
        fallen = f"{worst['class']} -{_percent(worst['drop'])}" if worst["drop"] > 0 else "-"
        lines.append(
            f"| {cell['method']} | {cell['count']} | {_interval(cell['target'], 'rate')} "
            f"| {_interval(cell['retained'])} | {' | '.join(groups)} | {_interval(cell['score'])} "
            f"| {fallen} | {cell['seconds']:.2f} |"
        )
    options = found["options"]
    lines += [
        "",
        f"At least {options['targets']} pictures of the removed concepts and {options['each']} of "
        f"every other object and style a cell, seed {options['seed']}, {options['steps']} steps, "
        f"guidance {options['guidance_scale']:g}; in per cent with 95 % intervals (target: Wilson; "
        "retained and score: Wilson's bounds of their rates combined, the unedited model's as they "
        "are).",
        "",
    ]
    lines += [
        f"- {name}: {method['settings']}. {method['source']}".rstrip()
        for name, method in found["methods"].items()
    ]
    return "\n".join(lines) + "\n"


def plot(found: Mapping[str, Any], path: Path) -> None:
    """Score, target rate and retention over the number of concepts, one curve for each method."""
    mpl.rcParams["svg.hashsalt"] = "peers"  # the same figures give the same bytes
    figure = Figure(figsize=(15, 4.4), layout="constrained")
    counts = sorted({cell["count"] for cell in found["cells"]})
    for axes, (key, title) in zip(figure.subplots(1, len(_CURVES)), _CURVES, strict=True):
        for i, name in enumerate(found["methods"]):
            mine = [cell for cell in found["cells"] if cell["method"] == name]
            if name == UNEDITED or not mine:
                continue
            parts = [cell["target" if key == "target_rate" else key] for cell in mine]
            middle = [part["rate" if key == "target_rate" else "value"] for part in parts]
            axes.errorbar(
                [cell["count"] * (1 + 0.015 * (i - 4)) for cell in mine],
                middle,
                yerr=[
                    [max(0.0, m - p["low"]) for m, p in zip(middle, parts, strict=True)],
                    [max(0.0, p["high"] - m) for m, p in zip(middle, parts, strict=True)],
                ],
                label=name,
                marker="o",
                markersize=4,
                capsize=2,
                linewidth=2.4 if name == "quickfix" else 1.2,
                color=f"C{i}",
            )
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set_xlabel("concepts removed together")
        axes.set_title(title)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def write(found: Mapping[str, Any], folder: Path) -> None:
    """`peers.json`, `peers.md` and `peers.png` in `folder`."""
    (folder / "peers.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (folder / "peers.md").write_text(markdown(found), encoding="utf-8")
    plot(found, folder / "peers.png")


def _worst(cell: Cell, unedited: Cell) -> dict[str, Any]:
    """The kept object or style that falls most, and by how much."""
    drops: dict[str, float] = {}
    for group in ("object", "style"):
        before = _by_class(cell.classes[group], unedited.kept[group])
        after = _by_class(cell.classes[group], cell.kept[group])
        drops |= {name: before[name] - after[name] for name in before}
    name = max(drops, key=drops.__getitem__)
    return {"class": name, "drop": round(drops[name], 4)}


def _by_class(names: Sequence[str], flags: Sequence[bool]) -> dict[str, float]:
    mine = {name: [f for n, f in zip(names, flags, strict=True) if n == name] for name in names}
    return {name: round(sum(found) / len(found), 4) for name, found in mine.items()}


def _rate(flags: Sequence[bool]) -> Rate:
    return Rate(sum(flags), len(flags))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(part: Mapping[str, float], key: str = "value") -> str:
    return f"{_percent(part[key])} [{_percent(part['low'])}, {_percent(part['high'])}]"
