"""From cells to figures: rates, intervals, the JSON, the table and the plot.

The score is the harmonic mean of (1 - target rate) and the retained accuracy relative to the
unedited model's on the same prompts and seeds. Retained accuracy is the mean of three rates, so
that no group counts more for having more pictures: objects on plain pictures, styles on styled
ones, colours on all.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from benchmarks.peers.cells import GROUPS, Cell
from benchmarks.peers.methods import Method
from edits.evaluation.rates import Rate

UNEDITED = "unedited"
_RESAMPLES = 2000
_CURVES = (
    ("score", "harmonic mean of removal and retention"),
    ("target_rate", "target rate"),
    ("retained", "retained, relative to the unedited model"),
)
Floats = NDArray[np.float64]


def figures(cell: Cell, unedited: Cell) -> dict[str, Any]:
    """All figures of a cell as JSON; the two cells have the same pictures."""
    target = Rate(sum(cell.target), len(cell.target))
    score, retained = _score(np.array([target.value]), *(_rates(c, None) for c in (cell, unedited)))
    generator = np.random.default_rng(0)
    draws = _resamples(cell, generator)
    targets = np.array(cell.target, float)[draws["target"]].mean(1)
    scores, retentions = _score(targets, _rates(cell, draws), _rates(unedited, draws))
    return {
        "method": cell.method,
        "count": cell.count,
        "target": target.document(),
        "target_unedited": Rate(sum(unedited.target), len(unedited.target)).document(),
        "retained": _estimate(retained[0], retentions),
        "score": _estimate(score[0], scores),
        "groups": {
            name: {
                **Rate(sum(cell.kept[name]), len(cell.kept[name])).document(),
                "unedited": round(float(np.mean(unedited.kept[name])), 4),
            }
            for name in GROUPS
        },
        "worst": _worst(cell, unedited),
        "target_by_concept": _by_class(cell.classes["target"], cell.target),
        "seconds": round(cell.seconds, 3),
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
        "retained and score: bootstrap over pictures, paired with the unedited model).",
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


def _resamples(cell: Cell, generator: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """Indices (resamples, n) of the targets, of the plain and of the styled pictures."""
    sizes = {
        "target": len(cell.target),
        "object": len(cell.kept["object"]),
        "style": len(cell.kept["style"]),
    }
    draws = {name: generator.integers(0, n, (_RESAMPLES, n)) for name, n in sizes.items()}
    # A picture brings its colour along.
    draws["colour"] = np.concatenate([draws["object"], draws["style"] + sizes["object"]], axis=1)
    return draws


def _rates(cell: Cell, draws: Mapping[str, NDArray[np.int64]] | None) -> Floats:
    """Mean of the groups' rates: (resamples,), or (1,) for the pictures as drawn."""
    total: Floats = np.zeros(1)
    for group in GROUPS:
        flags = np.array(cell.kept[group], float)
        total = total + (flags[None] if draws is None else flags[draws[group]]).mean(1)
    return total / len(GROUPS)


def _score(target: Floats, kept: Floats, unedited: Floats) -> tuple[Floats, Floats]:
    """Harmonic means and relative retentions; a retention above one counts as one in the mean."""
    retained = kept / np.maximum(unedited, 1e-9)
    removed, capped = 1 - target, np.minimum(retained, 1.0)
    total = removed + capped
    return np.where(total > 0, 2 * removed * capped / np.maximum(total, 1e-9), 0.0), retained


def _estimate(value: float, draws: Floats) -> dict[str, float]:
    low, high = np.quantile(draws, (0.025, 0.975))
    return {
        "value": round(float(value), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(part: Mapping[str, float], key: str = "value") -> str:
    return f"{_percent(part[key])} [{_percent(part['low'])}, {_percent(part['high'])}]"
