"""The UNet on the ONNX backend, measured by `benchmarks.onnx_step` in a process of its own."""

import json
import subprocess
import sys
from importlib.util import find_spec

from benchmarks.serving.bench import Bench
from benchmarks.serving.report import Bound, Row

__all__ = ["measure"]

MODULE = "benchmarks.onnx_step"
_TITLE = "UNet step, onnx CPU provider"
_BOUND = Bound("at most", 0.75)


def measure(bench: Bench) -> list[Row]:
    """One row for each batch size that it measured."""
    if find_spec(MODULE) is None:
        return [Row("onnx", _TITLE, "torch eager", _BOUND, missing="not there")]
    command = [sys.executable, "-m", MODULE]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603
    document = json.loads(done.stdout)
    return [
        Row(
            "onnx",
            f"{_TITLE}, batch {batch}: {figures['onnx_ms']:.2f} ms",
            f"torch eager: {figures['torch_ms']:.2f} ms",
            _BOUND,
            figures["onnx_ms"] / figures["torch_ms"],
            details={"document": document},
        )
        for batch, figures in document["batches"].items()
    ]
