"""Measure the service beside its peers and print one table.

    python -m benchmarks.serving                       # everything but the soak
    python -m benchmarks.serving --soak                # and the soak
    python -m benchmarks.serving --only alone --only cancel
    python -m benchmarks.serving --quick               # does everything work? figures mean nothing
    python -m benchmarks.serving --allocator system    # every side with this machine's malloc

Writes `serving_NAME.json` for every measurement. A ratio that is missed is shown as missed, and the
exit code is 0; it is 1 when a server fails, refuses what it should serve, or draws another image
than diffusers' pipeline.
"""

import logging
import signal
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.logging import RichHandler

from benchmarks.allocator import Allocator, use
from benchmarks.serving.bench import Bench
from benchmarks.serving.load import Broken
from benchmarks.serving.plan import Plan
from benchmarks.serving.report import Row, table, write
from benchmarks.serving.rows import (
    alone,
    cancel,
    latency,
    onnx,
    policies,
    queue,
    soak,
    throughput,
)
from edits.serving import ServiceDidNotStart
from edits.terminal import console

MEASUREMENTS: dict[str, Callable[[Bench], list[Row]]] = {
    "alone": alone.measure,
    "throughput": throughput.measure,
    "latency": latency.measure,
    "onnx": onnx.measure,
    "policies": policies.measure,
    "queue": queue.measure,
    "cancel": cancel.measure,
    "soak": soak.measure,
}
RESULTS = Path("benchmarks/results")
SMOKE_RESULTS = Path("out/serving")
_FAILURES = (Broken, ServiceDidNotStart, subprocess.CalledProcessError)


def main(
    only: Annotated[list[str] | None, typer.Option(help=", ".join(MEASUREMENTS))] = None,
    quick: Annotated[bool, typer.Option(help="A smoke run of small sizes.")] = False,
    soak: Annotated[bool, typer.Option(help="The soak too.")] = False,
    soak_seconds: Annotated[float, typer.Option(min=10)] = 600.0,
    repeats: Annotated[int, typer.Option(min=1, help="Of each side; documents quote 5.")] = 5,
    requests: Annotated[int, typer.Option(min=1, help="Of one repeat at saturation.")] = 96,
    pairs: Annotated[int, typer.Option(min=1, help="Of the row `alone`.")] = 15,
    model: Annotated[str, typer.Option(help="Folder of the pipeline.")] = "models/demo",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    seed: int = 7,
    allocator: Annotated[
        Allocator, typer.Option(help="Of every side; jemalloc, as in the image, is fetched.")
    ] = Allocator.jemalloc,
    out: Annotated[
        Path | None, typer.Option(help=f"Default: {RESULTS}, with --quick {SMOKE_RESULTS}.")
    ] = None,
) -> None:
    """Measure, print, write."""
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console)]
    )
    log = logging.getLogger("benchmarks.serving")
    log.setLevel(logging.INFO)
    # A run that is told to end must end its servers too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = _names(only, soak=soak)
    use(allocator)
    plan = (
        Plan.smoke(seed, soak_seconds=soak_seconds)
        if quick
        else replace(
            Plan.full(seed, soak_seconds=soak_seconds, repeats=repeats),
            requests=requests,
            alone_pairs=pairs,
        )
    )
    plan = replace(plan, model=model, device=device, dtype=dtype)
    folder = out or (SMOKE_RESULTS if quick else RESULTS)
    rows: list[Row] = []
    broken = False
    with tempfile.TemporaryDirectory() as scratch, Bench(plan, Path(scratch)) as bench:
        for name in names:
            log.info("measuring: %s", name)
            try:
                found = MEASUREMENTS[name](bench)
            except _FAILURES as failure:
                log.error("%s is broken: %s", name, failure)
                broken = True
                found = [Row(name, name, "", missing="broken")]
            else:
                write(folder, name, plan, found)
            rows += found
    print(table(rows, quick=quick))
    raise typer.Exit(int(broken))


def _names(only: list[str] | None, *, soak: bool) -> list[str]:
    if not only:
        return [name for name in MEASUREMENTS if soak or name != "soak"]
    for name in only:
        if name not in MEASUREMENTS:
            raise typer.BadParameter(f"no measurement {name!r}; known: {', '.join(MEASUREMENTS)}")
    return list(dict.fromkeys(only))


if __name__ == "__main__":
    typer.run(main)
