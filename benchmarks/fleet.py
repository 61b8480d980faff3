"""How soon a fleet runs what is published: many replica processes on one PostgreSQL.

    python -m benchmarks.fleet                              # 32 replicas, 20 publications
    python -m benchmarks.fleet --replicas 8 --kill 0

Each replica is a process with the service's own store, editor, activation and reconciler around a
small random text encoder; nothing draws pictures. PostgreSQL is a real one, started here.
During every second publication `--kill` replicas are killed (SIGKILL) and started again. A time
runs from the call that publishes to the moment, by the database's clock, at which the replica's
acknowledgement of that revision and digest was stored. Exit code 1 when a replica does not
acknowledge, or acknowledges a revision with a digest that is not its own.
"""

import json
import multiprocessing
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.fleet_replica import make_pipeline, replica
from edits.manifests import RevisionContent, parse_manifest
from edits.method import Editor
from edits.store import ReplicaReport, RevisionStore
from tests.postgres import postgres

PATIENCE = 60.0
LOOK_SECONDS = 0.1  # times are those of the acknowledgements: looking more often only costs cores
CONCEPTS = ("pistol", "knife", "cat", "robot", "van gogh")

# The workers are forked from a process that has imported everything and built the model: what
# they share costs memory once, and a restart costs no import.
context = multiprocessing.get_context("forkserver")


@dataclass
class Fleet:
    """The processes by name."""

    url: str
    processes: dict[str, BaseProcess]

    def start(self, name: str) -> None:
        """Start a replica, or start it again."""
        process = context.Process(target=replica, args=(self.url, name), daemon=True)
        process.start()
        self.processes[name] = process

    def kill(self, name: str) -> None:
        """As the kernel does when memory runs out."""
        process = self.processes[name]
        process.kill()
        process.join()


def content_of(number: int, fingerprint: str) -> RevisionContent:
    """A set of edits that no other number has."""
    manifests = [
        {
            "apiVersion": "quickfix/v1",
            "kind": "ConceptEdit",
            "metadata": {"name": f"remove-{concept.replace(' ', '-')}", "version": number},
            "spec": {"concept": concept, "anchor": "toy", "type": "object"},
        }
        for concept in CONCEPTS[: 1 + number % len(CONCEPTS)]
    ]
    return RevisionContent(
        tuple(parse_manifest(manifest) for manifest in manifests), fingerprint=fingerprint
    )


def on_head(reports: Sequence[ReplicaReport], number: int) -> dict[str, datetime]:
    """When each replica that runs `number` said so last."""
    return {
        report.id: report.heartbeat_at
        for report in reports
        if report.active_revision == number and report.heartbeat_at is not None
    }


def publication(
    store: RevisionStore, fleet: Fleet, content: RevisionContent, killed: Sequence[str]
) -> dict[str, Any]:
    """Publish, kill and restart meanwhile, and wait for everybody; seconds by replica."""
    expected = content.digest()
    began = store.now()
    revision = store.publish_and_activate(content, author="benchmark", reason="fleet")
    for name in killed:
        fleet.kill(name)
    for name in killed:
        fleet.start(name)
    seconds: dict[str, float] = {}
    deadline = time.monotonic() + PATIENCE
    wrong = 0
    while len(seconds) < len(fleet.processes) and time.monotonic() < deadline:
        reports = store.replicas()
        wrong += sum(
            report.active_revision == revision.number and report.active_digest != expected
            for report in reports
        )
        for name, at in on_head(reports, revision.number).items():
            seconds.setdefault(name, (at - began).total_seconds())
        time.sleep(LOOK_SECONDS)
    lasting = [seconds.get(name, float("inf")) for name in fleet.processes if name not in killed]
    restarted = [seconds.get(name, float("inf")) for name in killed]
    return {"lasting": lasting, "restarted": restarted, "wrong": wrong}


def main(
    replicas: int = 32,
    publications: int = 20,
    kill: Annotated[int, typer.Option(help="Replicas killed at every second one.")] = 2,
    seed: int = 0,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Measure, print and check."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context.set_forkserver_preload(["benchmarks.fleet_replica", "tests.postgres", "typer"])
    choose = random.Random(seed)  # noqa: S311  not a secret
    fingerprint = Editor(make_pipeline()).fingerprint
    rows = []
    with postgres() as server, server.database() as url, RevisionStore.open(url) as store:
        fleet = Fleet(url, {})
        for n in range(replicas):
            fleet.start(f"replica-{n:02d}")
        deadline = time.monotonic() + 10 * PATIENCE
        while len(on_head(store.replicas(), store.head_number() or 0)) < replicas:
            if time.monotonic() > deadline:
                raise SystemExit("the fleet did not start")
            time.sleep(0.5)
        time.sleep(2)  # what starting left behind
        for number in range(1, publications + 1):
            killed = choose.sample(sorted(fleet.processes), kill) if number % 2 == 0 else []
            rows.append(publication(store, fleet, content_of(number, fingerprint), killed))
            time.sleep(1)
        for process in fleet.processes.values():
            process.terminate()
        for process in fleet.processes.values():
            process.join()
        stopped = sum(report.stopped_at is not None for report in store.replicas())
    lasting = sorted(value for row in rows for value in row["lasting"])
    restarted = sorted(value for row in rows for value in row["restarted"])
    document = {
        "replicas": replicas,
        "publications": publications,
        "killed_and_restarted": len(restarted),
        "cores": len(os.sched_getaffinity(0)),
        "median_seconds": round(median(lasting), 3),
        "p99_seconds": round(lasting[int(0.99 * (len(lasting) - 1))], 3),
        "max_seconds": round(lasting[-1], 3),
        "max_seconds_of_each": [round(max(row["lasting"]), 3) for row in rows],
        "restarted_max_seconds": round(restarted[-1], 3) if restarted else None,
        "wrong_digest": sum(row["wrong"] for row in rows),
        "said_that_they_stopped": stopped,
    }
    print(json.dumps(document, indent=2))
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n")
    if lasting[-1] == float("inf") or document["wrong_digest"]:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
