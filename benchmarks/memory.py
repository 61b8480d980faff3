"""How a service's memory and activation time grow with edits and policies.

    python -m benchmarks.memory                   # six services one after the other

Each service starts on a store whose head holds so many edits in so many policies; what counts is
the resident memory of the process that draws, once it is ready and has drawn one image.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.faults.supervised import Supervised
from benchmarks.faults.traffic import draw
from edits.manifests import Choice, RevisionContent, parse_manifest
from edits.store import RevisionStore

CELLS = ((0, 1), (1, 1), (100, 1), (1000, 1), (100, 4), (100, 16))  # edits, policies
CHOICE = Choice(tokens="last", ridge=30.0, preserve_weight=0.05, pad_weight=1.0)


def content(edits: int, policies: int) -> RevisionContent:
    """So many edits; besides `default` each policy leaves out another one."""
    manifests = tuple(
        parse_manifest(
            {
                "apiVersion": "quickfix/v1",
                "kind": "ConceptEdit",
                "metadata": {"name": f"remove-{number}", "version": 1},
                "spec": {"concept": f"thing {number}", "anchor": "toy", "type": "object"},
            }
        )
        for number in range(edits)
    )
    names = [edit.name for edit in manifests]
    others = {
        f"policy-{number}": tuple(names[:number] + names[number + 1 :])
        for number in range(policies - 1)
    }
    return RevisionContent(manifests, others, choices=dict.fromkeys(names, CHOICE))


def measured(edits: int, policies: int) -> dict[str, Any]:
    """One cell."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "state").mkdir(mode=0o700)
        with RevisionStore.open(f"sqlite:///{folder / 'state' / 'quickfix.db'}") as store:
            store.publish_and_activate(
                content(edits, policies), author="benchmark", reason="memory"
            )
        size = (folder / "state" / "quickfix.db").stat().st_size
        began = time.monotonic()
        service = Supervised("memory", folder, {"QUICKFIX_THREADS": "1"})
        try:
            service.wait_until_ready()
            ready = time.monotonic() - began
            if (status := draw(service, seed=1).status) != 200:
                raise SystemExit(f"the service answered {status}")
            memory = service.worker().memory_info().rss
            text = service.public.get("/metrics").text
            seconds = float(text.split("quickfix_activation_seconds_sum ")[1].split("\n")[0])
        finally:
            service.end()
    return {
        "edits": edits,
        "policies": policies,
        "resident_mib": round(memory / 2**20),
        "activation_seconds": round(seconds, 2),
        "ready_after_seconds": round(ready, 1),
        "store_kib": round(size / 1024),
    }


def main(
    out: Annotated[Path, typer.Option(help="Where the rows go as JSON.")] = Path(
        "benchmarks/results/memory.json"
    ),
) -> None:
    """Measure, print, write."""
    rows = []
    for edits, policies in CELLS:
        rows.append(measured(edits, policies))
        print(json.dumps(rows[-1]), flush=True)
    out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
