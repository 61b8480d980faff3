"""Load on one server, from the generator's process: what was answered, and how fast."""

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving.references import References
from benchmarks.serving.statistics import percentile
from benchmarks.serving.workload import ImageRequest

__all__ = ["Broken", "Load", "closed_loop", "held", "open_loop"]

_log = logging.getLogger("benchmarks.serving")

# Above this the generator takes from the servers what they are measured by.
LARGEST_GENERATOR_SHARE = 0.1


class Broken(Exception):
    """A server failed, or drew something else: there is nothing to compare. Says what."""


@dataclass(frozen=True, slots=True)
class Load:
    """The answers to one load; all were right."""

    latencies: tuple[float, ...]  # seconds from the intended moment to the last byte
    lateness: tuple[float, ...]  # seconds from the intended moment to the send
    seconds: float  # first send to last answer
    largest_difference: int | None  # of a channel, of 255; None: nothing was compared
    compared: int
    generator_cpu: float  # share of one core that the generator used

    @property
    def throughput(self) -> float:
        """Images a second."""
        return len(self.latencies) / self.seconds

    @property
    def p95(self) -> float:
        """Seconds."""
        return percentile(self.latencies, 0.95)

    def document(self) -> dict[str, Any]:
        """Figures of this load, without its single requests."""
        return {
            "n": len(self.latencies),
            "images_per_second": self.throughput,
            "latency_seconds": {
                name: percentile(self.latencies, share)
                for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
            },
            "generator_late_seconds_p99": percentile(self.lateness, 0.99),
            "generator_cpu_of_one_core": self.generator_cpu,
            "compared_with_diffusers": self.compared,
            "largest_difference_of_255": self.largest_difference,
        }


def closed_loop(
    url: str,
    requests: Sequence[ImageRequest],
    *,
    clients: int,
    references: References | None = None,
) -> Load:
    """So many clients ask one after the other until all is answered. Raises Broken."""
    return _sent(url, requests, references, {"clients": clients, "at": None})


def open_loop(
    url: str,
    requests: Sequence[ImageRequest],
    *,
    at: Sequence[float],
    references: References | None = None,
) -> Load:
    """Each request is sent at its time, in seconds. Raises Broken."""
    return _sent(url, requests, references, {"clients": None, "at": list(at)})


@contextmanager
def held(url: str, requests: Sequence[ImageRequest]) -> Iterator[None]:
    """All requests are sent at once; at the end every client leaves, answered or not."""
    how = {"clients": len(requests), "at": None}
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(_command(Path(folder), _spec(url, requests, None, how)))  # noqa: S603
        try:
            yield
        finally:
            process.terminate()
            process.wait()


def _sent(
    url: str,
    requests: Sequence[ImageRequest],
    references: References | None,
    how: dict[str, Any],
) -> Load:
    with tempfile.TemporaryDirectory() as folder:
        command = _command(Path(folder), _spec(url, requests, references, how))
        subprocess.run(command, check=True)  # noqa: S603 - our own command
        result = json.loads((Path(folder) / "result.json").read_text("utf-8"))
    load = load_of(result, may_differ=1 if references is None else references.may_differ)
    if load.generator_cpu > LARGEST_GENERATOR_SHARE:
        _log.warning("the generator used %.0f %% of a core", 100 * load.generator_cpu)
    return load


def load_of(result: dict[str, Any], *, may_differ: int = 1) -> Load:
    """What the generator wrote. Raises Broken when an answer was an error or a wrong image."""
    answers = result["answers"]
    wrong = [answer for answer in answers if answer["wrong"] is not None]
    if wrong:
        first = wrong[0]
        raise Broken(
            f"{len(wrong)} of {len(answers)} requests failed, "
            f"the first with status {first['status']}: {first['wrong']}"
        )
    differences = [a["difference"] for a in answers if a["difference"] is not None]
    largest = max(differences, default=None)
    if largest is not None and largest > may_differ:
        raise Broken(
            f"{sum(d > may_differ for d in differences)} of {len(differences)} images are "
            f"not those of diffusers' pipeline; a channel differs by up to {largest} of 255"
        )
    return Load(
        latencies=tuple(a["done"] - a["intended"] for a in answers),
        lateness=tuple(a["sent"] - a["intended"] for a in answers),
        seconds=max(a["done"] for a in answers) - min(a["sent"] for a in answers),
        largest_difference=largest,
        compared=len(differences),
        generator_cpu=result["cpu_seconds"] / result["wall_seconds"],
    )


def _spec(
    url: str,
    requests: Sequence[ImageRequest],
    references: References | None,
    how: dict[str, Any],
) -> dict[str, Any]:
    return how | {
        "url": url,
        "references": None if references is None else str(references.file),
        "requests": [
            {
                "body": request.body,
                "reference": None if references is None else references.index.get(request),
            }
            for request in requests
        ],
    }


def _command(folder: Path, spec: dict[str, Any]) -> list[str]:
    path = folder / "spec.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    module = "benchmarks.serving.generator"
    return [sys.executable, "-m", module, str(path), str(folder / "result.json")]
