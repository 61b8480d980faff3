"""The table of a run, and the documents that it leaves."""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from benchmarks.serving.plan import Plan
from benchmarks.serving.statistics import Spread
from service.allocator import allocator

__all__ = ["Bound", "Row", "frame", "table", "write"]

_PACKAGES = ("torch", "diffusers", "transformers", "bentoml", "httpx", "numpy")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a ratio is to reach."""

    kind: Literal["at most", "at least"]
    value: float

    def holds(self, ratio: float) -> bool:
        """Whether the ratio reaches it; a ratio that is no number never does."""
        return ratio <= self.value if self.kind == "at most" else ratio >= self.value

    def __str__(self) -> str:
        return f"{'≤' if self.kind == 'at most' else '≥'} {self.value:.2f}"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; without a bound it is told and not judged."""

    name: str
    measured: str
    against: str
    bound: Bound | None = None
    ratio: float | None = None  # None: could not be measured, `verdict` says why
    spread: Spread | None = None  # of the ratio, repeat by repeat
    missing: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """`reached`, `missed`, `-` where nothing is to be reached, or why there is no ratio."""
        if self.ratio is None:
            return self.missing
        if self.bound is None:
            return "-"
        return "reached" if self.bound.holds(self.ratio) else "missed"

    def document(self) -> dict[str, Any]:
        """The row with its raw figures."""
        return {
            "name": self.name,
            "measured": self.measured,
            "against": self.against,
            "to_reach": None if self.bound is None else str(self.bound),
            "ratio": self.ratio,
            "ratio_by_repeat": None if self.spread is None else self.spread.document(),
            "verdict": self.verdict,
            **self.details,
        }


def table(rows: Sequence[Row], *, quick: bool = False) -> str:
    """The rows as a table in Markdown, its columns padded to read well on a terminal."""
    header = ["measured", "against", "to reach", "ratio", "verdict"]
    lines = [header, *([_cell(text) for text in _cells(row, quick)] for row in rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(header))]
    padded = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    ]
    rule = "| " + " | ".join("-" * width for width in widths) + " |"
    return "\n".join([padded[0], rule, *padded[1:]])


def _cells(row: Row, quick: bool) -> list[str]:
    ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
    if row.spread is not None and len(row.spread.values) > 1:
        ratio += f" ({row.spread.low:.3f} to {row.spread.high:.3f})"
    verdict = "smoke run" if quick and row.ratio is not None else row.verdict
    return [row.measured, row.against, str(row.bound or ""), ratio, verdict]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def frame(plan: Plan) -> dict[str, Any]:
    """What a figure must be read with: machine, versions, sizes."""
    return {
        "device": _processor() if plan.device == "cpu" else torch.cuda.get_device_name(),
        "model": Path(plan.model).name,
        "cores": len(psutil.Process().cpu_affinity()),
        "threads": plan.threads,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _PACKAGES},
        "dtype": plan.dtype,
        "allocator": allocator(),
        "seed": plan.seed,
        "repeats": plan.repeats,
        "quick": plan.quick,
    }


def write(folder: Path, name: str, plan: Plan, rows: Sequence[Row]) -> Path:
    """`serving_NAME.json` with the rows of one measurement; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"serving_{name}.json"
    command = f"python -m benchmarks.serving --only {name} --seed {plan.seed}"
    usual = Plan.full(plan.seed)
    fields = {name: name for name in ("model", "device", "dtype", "repeats", "requests")}
    for option, field_name in {**fields, "pairs": "alone_pairs"}.items():
        value = getattr(plan, field_name)
        if not plan.quick and value != getattr(usual, field_name):
            command += f" --{option} {Path(value).name if option == 'model' else value}"
    if allocator() != "jemalloc":
        command += " --allocator system"
    if name == "soak":
        command += f" --soak-seconds {plan.soak_seconds:g}"
    document = {
        "command": command + " --quick" * plan.quick,
        **frame(plan),
        "load_average_at_the_end": psutil.getloadavg()[0],
        "rows": [row.document() for row in rows],
    }
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return path


def _processor() -> str:
    """The processor's model as Linux names it, else what Python knows."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
