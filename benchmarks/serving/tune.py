"""Which arguments serve the peers best: throughput at saturation and p95 of a Poisson stream.

    python -m benchmarks.serving.tune              # every candidate, three times in turn
    python -m benchmarks.serving.tune --quick      # does it work?

The best throughput of a peer with the threads of the benchmark becomes the default in
`peers/pipeline.py`, the lower p95 decides between two within 3 %. Candidates with other processes
are told, not chosen: both sides of the benchmark have one process that draws. Writes
`serving_tune.json`.
"""

import json
import logging
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.allocator import Allocator, use
from benchmarks.serving.bench import Bench
from benchmarks.serving.load import Broken, closed_loop, open_loop
from benchmarks.serving.plan import Plan
from benchmarks.serving.report import frame
from benchmarks.serving.servers import peer
from benchmarks.serving.statistics import Spread
from benchmarks.serving.workload import arrivals

_log = logging.getLogger("benchmarks.serving")


@dataclass
class Candidate:
    """A peer with arguments, and what was found."""

    name: str
    arguments: dict[str, object]
    throughputs: list[float] = field(default_factory=list)
    p95_seconds: float | None = None
    refused: str = ""  # why it is out

    def document(self) -> dict[str, Any]:
        """Arguments and figures."""
        found = Spread(tuple(self.throughputs)).document() if self.throughputs else None
        return {
            "peer": self.name,
            "arguments": self.arguments,
            "images_per_second": found,
            "p95_seconds": self.p95_seconds,
            "refused": self.refused,
        }

    def line(self) -> str:
        """For people."""
        shown = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        if self.refused:
            return f"{self.name:9} {shown:46} {self.refused}"
        speed = Spread(tuple(self.throughputs)).median
        return f"{self.name:9} {shown:46} {speed:.2f} images/s, p95 {self.p95_seconds:.2f} s"


def candidates() -> list[Candidate]:
    """The grid."""
    plain = [
        Candidate("plain", arguments)
        for arguments in ({}, {"channels_last": False}, {"channels_last": True})
    ]
    processes = Candidate("plain", {"workers": 2, "threads": 1})
    # Layouts of the service by default: benchmarks/onnx_step.py.
    adaptive = [
        Candidate("adaptive", {"max_batch_size": size, "max_latency_ms": 60_000})
        for size in (4, 8, 16, 32)
    ]
    # The less a request may take, the less BentoML waits for a batch, and the more it drops.
    hasty = [
        Candidate("adaptive", {"max_batch_size": 16, "max_latency_ms": bound})
        for bound in (20_000, 10_000)
    ]
    return [*plain, processes, *adaptive, *hasty]


def main(
    quick: Annotated[bool, typer.Option(help="Small sizes, one round.")] = False,
    rounds: Annotated[int, typer.Option(min=1)] = 3,
    seed: int = 171,
    allocator: Allocator = Allocator.jemalloc,
    out: Path = Path("out/serving"),
) -> None:
    """Measure, print, write."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    use(allocator)
    plan = Plan.smoke(seed) if quick else Plan.full(seed)
    found = candidates()
    with tempfile.TemporaryDirectory() as scratch, Bench(plan, Path(scratch)) as bench:
        for _ in range(1 if quick else rounds):
            for candidate in found:
                _measure(bench, candidate, rate=None)
        for name in ("plain", "adaptive"):
            those = [c for c in found if c.name == name and not c.refused]
            best = max(Spread(tuple(c.throughputs)).median for c in those)
            for candidate in those:
                _measure(bench, candidate, rate=plan.load * best)
    out.mkdir(parents=True, exist_ok=True)
    document = {**frame(plan), "candidates": [candidate.document() for candidate in found]}
    path = out / "serving_tune.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print("\n".join(candidate.line() for candidate in found))


def _measure(bench: Bench, candidate: Candidate, *, rate: float | None) -> None:
    """Throughput, or the p95 at that rate; a candidate that drops requests is out."""
    if candidate.refused:
        return
    _log.info("%s %s", candidate.name, candidate.arguments)
    plan = bench.plan
    references = bench.references(bench.mixed)
    with (
        tempfile.TemporaryDirectory() as folder,
        peer(
            candidate.name,
            Path(folder),
            plan,
            arguments=candidate.arguments,
        ) as server,
    ):
        try:
            bench.warm(server)
            if rate is None:
                load = closed_loop(
                    server.url, bench.mixed, clients=plan.clients, references=references
                )
                candidate.throughputs.append(load.throughput)
            else:
                moments = arrivals(len(bench.mixed), rate=rate, seed=plan.seed)
                load = open_loop(server.url, bench.mixed, at=moments, references=references)
                candidate.p95_seconds = load.p95
        except Broken as failure:
            candidate.refused = f"out: {failure}"


if __name__ == "__main__":
    typer.run(main)
