"""Run a set of profiles one after the other, print one table, and exit with 1 on a breach.

    python -m loadtests                          # the demo model, 3 minutes
    python -m loadtests spike soak --minutes 60  # others; what they are measured by comes first

Each profile runs in a locust process of its own, so that its CPU time and its lateness are its own.
Latency and saturation are measured first: the open loops are shares of them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from loadtests.replica import Replica, local_replica
from loadtests.thresholds import THRESHOLDS, Baseline

# Seconds of each profile in a set of three minutes.
SECONDS = {
    "unloaded": 20,
    "saturation": 35,
    "steady": 40,
    "overload": 40,
    "swap": 30,
    "spike": 60,
    "soak": 600,
}
MEASURED_FIRST = ("unloaded", "saturation")
# Overload next to the saturation that its images are counted against: a machine's speed drifts.
DEFAULT = ("overload", "steady", "swap")
MAX_QUEUE = 16  # of the service that is started; as many clients saturate it
STOP_SECONDS = 150  # for the answers that are still out


@dataclass(frozen=True, slots=True)
class Load:
    """Where the load goes, and where the results."""

    replica: Replica
    out: Path
    clients: int
    size: str
    prompts: Path | None

    def run(self, profile: str, seconds: int, baseline: Baseline) -> dict[str, Any]:
        """The outcome of one profile with its breaches. Raises RuntimeError when there is none."""
        outcome = self.out / f"{profile}.json"
        outcome.unlink(missing_ok=True)
        clients = str(self.clients if profile == "saturation" else 1)
        options = {
            "-f": Path(__file__).parent / "profiles" / f"{profile}.py",
            "-u": clients,
            "-r": clients,
            "-t": f"{seconds}s",
            "--stop-timeout": STOP_SECONDS,
            "--host": self.replica.url,
            "--html": self.out / f"{profile}.html",
            "--size": self.size,
            "--prompts": self.prompts,
            "--token-file": self.replica.token_file,
            "--saturation": baseline.saturation,
            "--unloaded-ms": baseline.unloaded_ms,
            "--outcome": outcome,
        }
        given = [str(text) for pair in options.items() if pair[1] is not None for text in pair]
        log = self.out / f"{profile}.log"
        with log.open("wb") as output:
            code = subprocess.run(  # noqa: S603 - our own command
                [sys.executable, "-m", "locust", "--headless", "--only-summary", *given],
                stdout=output,
                stderr=output,
                check=False,
            ).returncode
        if not outcome.exists():
            raise RuntimeError(f"{profile} gave no outcome (exit code {code}); its log is {log}")
        document: dict[str, Any] = json.loads(outcome.read_text(encoding="utf-8"))
        if bool(document["breaches"]) != bool(code):
            raise RuntimeError(f"{profile} ended with exit code {code}; its log is {log}")
        return document


def run_set(load: Load, profiles: list[str], seconds: dict[str, int]) -> list[dict[str, Any]]:
    """Unloaded latency and saturation, then the profiles, which are shares of these."""
    baseline = Baseline()
    outcomes = []
    for profile in [*MEASURED_FIRST, *(p for p in profiles if p not in MEASURED_FIRST)]:
        outcome = load.run(profile, seconds[profile], baseline)
        outcomes.append(outcome)
        if profile == "unloaded":
            baseline = replace(baseline, unloaded_ms=outcome["latency"]["p50"])
        elif profile == "saturation":
            baseline = replace(baseline, saturation=outcome["goodput"])
        if not outcome["latency"]["p50"] or not outcome["goodput"]:
            raise RuntimeError(f"{profile} drew {outcome['drawn']} images: give it more time")
    return outcomes


def table(outcomes: list[dict[str, Any]]) -> Table:
    """One row a profile; latencies in milliseconds from the intended moment of sending."""
    shown = Table(
        title="load test", caption="p50, p95, p99: ms from the intended moment of sending"
    )
    columns = ("requests/s", "requests", "failed", "429", "images/s", "p50", "p95", "p99")
    shown.add_column("profile")
    for column in (*columns, "late p99", "CPU"):
        shown.add_column(column, justify="right")
    shown.add_column("verdict")
    for outcome in outcomes:
        latency = outcome["latency"]
        shown.add_row(
            outcome["profile"],
            f"{outcome['offered']:.2f}",
            *(str(outcome[name]) for name in ("requests", "failed", "refused")),
            f"{outcome['goodput']:.2f}",
            *(f"{latency[name]:.0f}" for name in ("p50", "p95", "p99")),
            f"{outcome['lateness_p99_ms']:.1f}",
            f"{outcome['generator_cpu']:.1%}",
            "\n".join(outcome["breaches"]) or "holds",
        )
    return shown


@contextmanager
def _replica(options: argparse.Namespace) -> Iterator[Replica]:
    if options.host:
        yield Replica(options.host, options.token_file)
        return
    with (
        tempfile.TemporaryDirectory(prefix="quickfix-load-") as folder,
        local_replica(Path(folder), max_queue=MAX_QUEUE) as replica,
    ):
        yield replica


def main() -> int:
    """Exit code 1 when a threshold did not hold."""
    parser = argparse.ArgumentParser(prog="python -m loadtests", description=__doc__)
    parser.add_argument("profiles", nargs="*", metavar="PROFILE", help=", ".join(THRESHOLDS))
    parser.add_argument("--out", type=Path, default=Path("out/loadtest"))
    parser.add_argument("--minutes", type=float, help="of each profile that is named")
    parser.add_argument("--host", help="a service that runs, instead of one that is started")
    parser.add_argument("--token-file", type=Path, help="its operator token")
    parser.add_argument("--prompts", type=Path, help="one a line; default: of the demo model")
    parser.add_argument("--clients", type=int, default=MAX_QUEUE, help="that saturate it")
    options = parser.parse_args()
    profiles = options.profiles or list(DEFAULT)
    if unknown := sorted(set(profiles) - set(THRESHOLDS)):
        parser.error(f"no profile {unknown[0]!r}; known: {', '.join(THRESHOLDS)}")
    if options.host and options.token_file is None:
        parser.error("--host needs --token-file")
    seconds = dict(SECONDS)
    if options.minutes:
        seconds |= {profile: round(60 * options.minutes) for profile in options.profiles}
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        with _replica(options) as replica:
            size = replica.native_size()
            load = Load(replica, options.out.resolve(), options.clients, size, options.prompts)
            outcomes = run_set(load, profiles, seconds)
    except (httpx.HTTPError, RuntimeError) as error:
        parser.exit(1, f"the load test could not be run: {error}\n")
    (options.out / "loadtest.json").write_text(json.dumps(outcomes, indent=2) + "\n")
    Console(width=None if sys.stdout.isatty() else 160).print(table(outcomes))
    return 1 if any(outcome["breaches"] for outcome in outcomes) else 0


if __name__ == "__main__":
    raise SystemExit(main())
