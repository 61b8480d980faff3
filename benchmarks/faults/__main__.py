"""Run the faults one after the other, print the table, write it as JSON.

    python -m benchmarks.faults                       # all of them
    python -m benchmarks.faults --only killed --only database_frozen

Exit code 1 when anything acknowledged was lost, an image came after a closed fence, anyone was
answered with 500, an overload was none, or the fleet was not back within its objectives `--within`
seconds after a fault's end: users get each image within `--objective` seconds, and so does a probe
of every replica.
"""

import json
import math
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.faults.aftermath import lost, seconds_to_objectives, users_back
from benchmarks.faults.clock import settable_clock
from benchmarks.faults.faults import FAULTS, MAX_BATCH, MAX_QUEUE, Fault, Fleet
from benchmarks.faults.report import Row, breaches, table
from benchmarks.faults.supervised import Supervised
from benchmarks.faults.traffic import Gateway, Operator, p95
from tests.postgres import postgres
from tests.severed import severable
from tools.debian import NotToBeHad, unpacked

SETTINGS = {
    "QUICKFIX_THREADS": "1",
    "QUICKFIX_MAX_BATCH": str(MAX_BATCH),
    "QUICKFIX_MAX_QUEUE": str(MAX_QUEUE),
    "QUICKFIX_MAX_STALENESS_SECONDS": "60",
}
DISK_FULL = "full disk under the store's file"


@contextmanager
def fleet_of_two(seconds: float, *, faked_clock: bool) -> Iterator[Fleet]:
    """Started and ready; with `faked_clock` the second one's wall clock can be set."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(postgres())
        url = stack.enter_context(server.database())
        link, through_link = stack.enter_context(severable(url))
        clock, faked = settable_clock(folder) if faked_clock else (None, {})
        first = Supervised("first", folder / "first", {**SETTINGS, "QUICKFIX_STORE": url})
        stack.callback(first.end)
        second = Supervised(
            "second", folder / "second", {**SETTINGS, **faked, "QUICKFIX_STORE": through_link}
        )
        stack.callback(second.end)
        for service in (first, second):
            service.wait_until_ready()
        yield Fleet((first, second), server, link, url, clock, seconds)


def observed(
    services: Sequence[Supervised],
    url: str,
    fault: Fault,
    fleet: Any,
    *,
    clients: int,
    objective: float,
) -> Row:
    """One fault under load: what was answered while it lasted and until 3 s after recovery."""
    starts = sum(service.starts for service in services)
    gateway = Gateway(services, clients)
    operator = Operator(services)
    try:
        time.sleep(3)
        began = time.monotonic()
        with fault(fleet) as told:
            ended = time.monotonic()
        back = seconds_to_objectives(services, objective)
        time.sleep(3)
    finally:
        operator.end()
        gateway.end()
    during = [each for each in gateway.seen if began <= each.completed_at <= ended + back]
    after = [each for each in gateway.seen if each.asked_at > ended + back]
    return {
        "seconds": round(ended - began, 1),
        "answers": dict(Counter(str(each.status) for each in during)),
        "p95_seconds": _rounded(p95(during)),
        "p95_seconds_after": _rounded(p95(after)),
        "failed_after": sum(each.status != 200 for each in after),
        "operator": dict(operator.answers),
        "acknowledged": len(operator.acknowledged),
        "fences_closed": sum(each.closed for each in operator.acknowledged),
        "lost": lost(url, operator.acknowledged, gateway.seen),
        "users_back_seconds": _rounded(users_back(gateway.seen, objective, began, ended)),
        "replicas_back_seconds": _rounded(back),
        "starts": sum(service.starts for service in services) - starts,
        **told,
    }


def disk_full(seconds: float, **load: Any) -> Row:
    """A service whose store is a SQLite file on a tmpfs of 8 MiB, which something else fills."""
    if os.geteuid() != 0:
        return {"skipped": "a tmpfs can be mounted by root only"}
    with tempfile.TemporaryDirectory() as name:
        disk = Path(name, "state")
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
        done = subprocess.run(mount, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode != 0:
            return {"skipped": f"no tmpfs: {done.stderr.strip()}"}
        try:
            service = Supervised("alone", Path(name), {**SETTINGS, "QUICKFIX_STATE_DIR": str(disk)})
            try:
                service.wait_until_ready()
                url = f"sqlite:///{disk / 'quickfix.db'}"
                return observed([service], url, _filled(disk, seconds), None, **load)
            finally:
                service.end()
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)  # noqa: S603, S607


def _filled(disk: Path, seconds: float) -> Fault:
    @contextmanager
    def filled(_fleet: Fleet) -> Iterator[dict[str, object]]:
        junk = disk / "junk"
        with suppress(OSError), junk.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4096)
        time.sleep(seconds)
        junk.unlink()
        yield {}

    return filled


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None or math.isinf(seconds) else round(seconds, 2)


def main(
    only: Annotated[list[str] | None, typer.Option(help="Names of faults.")] = None,
    seconds: float = 10.0,
    clients: int = 4,
    within: float = 10.0,
    objective: Annotated[float, typer.Option(help="Of one image, in seconds.")] = 5.0,
    out: Annotated[Path, typer.Option(help="Where the rows go as JSON.")] = Path(
        "benchmarks/results/faults.json"
    ),
) -> None:
    """Measure, print and check."""
    names = only or [*FAULTS, "disk_full"]
    load: dict[str, Any] = {"clients": clients, "objective": objective}
    rows: dict[str, Row] = {}

    def run(title: str, row: Callable[[], Row]) -> None:
        rows[title] = row()
        print(title, json.dumps(rows[title]), flush=True)

    def run_on_a_fleet(names: Sequence[str], *, faked_clock: bool) -> None:
        with fleet_of_two(seconds, faked_clock=faked_clock) as fleet:
            for title, fault in (FAULTS[name] for name in names):
                run(title, partial(observed, fleet.services, fleet.url, fault, fleet, **load))

    if on_a_fleet := [name for name in names if name in FAULTS and name != "clock_stepped"]:
        run_on_a_fleet(on_a_fleet, faked_clock=False)
    if "clock_stepped" in names:
        try:
            unpacked("libfaketime")
        except NotToBeHad as error:
            rows[FAULTS["clock_stepped"][0]] = {"skipped": str(error)}
        else:
            run_on_a_fleet(["clock_stepped"], faked_clock=True)
    if "disk_full" in names:
        run(DISK_FULL, partial(disk_full, seconds, **load))
    document = {**load, "fault_seconds": seconds, "faults": rows}
    out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(table(rows))
    found = list(breaches(rows, within=within))
    for breach in found:
        print("breach:", breach)
    if found:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
