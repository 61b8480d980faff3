"""Hostile bodies against the admin route of a real service in this process.

    python -m benchmarks.manifest_fuzz            # 20,000 cases by hypothesis, some minutes

Every body is sent to `POST /admin/edits` of a replica on a small random model with a real store.
Exit code 1 when one is not refused (400, 413 or 422) with a message, takes 1 s or 50 MiB, or when
anything has changed: the log, the head, what runs, or the pixels of a picture.
"""

import json
import logging
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from hypothesis import HealthCheck, Phase, given, seed, settings

from service.settings import Settings
from tests.manifests.hostile import hostile_bodies, unknown_sites
from tests.service.pictures import pixels
from tests.service.replica import Replica
from tests.tiny_pipeline import write_pipeline

SECONDS = 1.0
MIB = 50.0
REFUSED = {400, 413, 422}


def state(replica: Replica) -> tuple[Any, ...]:
    """All that no refused body may change."""
    active = replica.runtime.activator.active
    store = replica.runtime.store
    drawn = pixels(replica.draw(steps=2)).tobytes()
    revision = None if active is None else active.revision
    return store.head_number(), len(store.revisions()), revision, drawn


def main(
    cases: int = 20_000,
    first_seed: int = 0,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Send, measure, print and check."""
    logging.disable(logging.CRITICAL)
    answers: Counter[str] = Counter()
    worst = {"seconds": 0.0, "mib": 0.0}
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_pipeline(folder / "model", "sd-1.x")
        replica = Replica(
            Settings(model=str(model), device="cpu", threads=1, state_dir=folder / "state")
        )
        operator = replica.operator
        before = state(replica)

        @seed(first_seed)
        @settings(
            max_examples=cases,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(hostile_bodies | unknown_sites)
        def attack(body: bytes) -> None:
            tracemalloc.start()
            started = time.perf_counter()
            answer = replica.client.post("/admin/edits", content=body, headers=operator)
            seconds = time.perf_counter() - started
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            worst["seconds"] = max(worst["seconds"], seconds)
            worst["mib"] = max(worst["mib"], peak / 2**20)
            error = answer.json().get("error", {})
            answers[f"{answer.status_code} {error.get('type')}"] += 1
            told = isinstance(error.get("message"), str) and len(error["message"]) > 10
            if answer.status_code not in REFUSED or not told:
                faults.append(f"{answer.status_code}: {body[:200]!r}")
            if seconds >= SECONDS or peak >= MIB * 2**20:
                faults.append(f"{seconds:.2f} s, {peak / 2**20:.0f} MiB: {body[:200]!r}")

        attack()
        changed = state(replica) != before
        replica.runtime.stop()
    document = {
        "cases": sum(answers.values()),
        "answers": dict(sorted(answers.items())),
        "slowest_seconds": round(worst["seconds"], 3),
        "largest_mib": round(worst["mib"], 1),
        "changed_anything": changed,
        "faults": len(faults),
        "first_faults": faults[:10],
        "seed": first_seed,
    }
    print(json.dumps(document, indent=2))
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n")
    if faults or changed or document["cases"] < cases:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
