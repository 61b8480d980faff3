"""The UNet on the ONNX backend, measured by `benchmarks.onnx_step` in a process of its own."""

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

from benchmarks.serving.bench import Bench
from benchmarks.serving.report import Bound, Row

__all__ = ["measure", "rows_of"]

MODULE = "benchmarks.onnx_step"
BATCHES = (1, 8)
_TITLE = "UNet step, onnx CPU provider"
_BOUND = Bound("at most", 0.75)


def measure(bench: Bench) -> list[Row]:
    """One row for each batch size, or one that says that there is no such backend."""
    if find_spec(MODULE) is None:
        return [Row("onnx", _TITLE, "torch eager", _BOUND, missing="not there")]
    plan = bench.plan
    out = bench.folder / "onnx_step.json"
    command = [sys.executable, "-m", MODULE, "--rows", ",".join(map(str, BATCHES))]
    command += ["--threads", str(plan.threads), "--repeats", str(plan.repeats), "--out", str(out)]
    if plan.quick:
        command += ["--steps", "2"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return rows_of(json.loads(out.read_text("utf-8")))


def rows_of(document: dict[str, Any]) -> list[Row]:
    """Medians of the sides, which took turns within every repeat."""
    rows = []
    for batch, figures in document["rows"].items():
        onnx, torch = figures["step"]["onnx"], figures["step"]["torch"]
        rows.append(
            Row(
                "onnx",
                f"{_TITLE}, batch {batch}: {onnx['ms']:.2f} ms",
                f"torch eager: {torch['ms']:.2f} ms",
                _BOUND,
                onnx["ms"] / torch["ms"],
                details={"batch": int(batch), **figures},
            )
        )
    return rows
