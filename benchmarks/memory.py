"""How a service's memory and activation time grow with edits and policies.

    python -m benchmarks.memory

One service follows its store while larger and larger sets become the head. Before each, sets
without edits take the place of what the service remembers of earlier ones; what counts is the
resident memory of the process that draws, after an image under the set.
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

CELLS = ((0, 1), (1, 1), (100, 1), (100, 4), (100, 16), (1000, 1))  # edits, policies
REMEMBERED = 4  # sets that a service keeps composed (service/snapshot.py)
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


def activated(service: Supervised, url: str, wanted: RevisionContent) -> float:
    """Make it the head, wait until it runs; seconds of its activation."""
    with RevisionStore.open(url) as store, service.admin() as admin:
        before = _activation_seconds(service)
        number = store.publish_and_activate(wanted, author="benchmark", reason="memory").number
        while admin.get("/admin/edits").json()["revision"] != number:
            time.sleep(0.2)
    return _activation_seconds(service) - before


def _activation_seconds(service: Supervised) -> float:
    text = service.public.get("/metrics").text
    return float(text.split("quickfix_activation_seconds_sum ")[1].split("\n")[0])


def main(
    out: Annotated[Path, typer.Option(help="Where the rows go as JSON.")] = Path(
        "benchmarks/results/memory.json"
    ),
) -> None:
    """Measure, print, write."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        service = Supervised("memory", folder, {"QUICKFIX_THREADS": "1"})
        try:
            service.wait_until_ready()
            url = f"sqlite:///{service.state_dir / 'quickfix.db'}"
            for edits, policies in CELLS:
                for number in range(REMEMBERED):
                    forgetting = RevisionContent((), {f"cell-{len(rows)}-{number}": ()})
                    activated(service, url, forgetting)
                wanted = content(edits, policies)
                seconds = activated(service, url, wanted)
                if (status := draw(service, seed=1, timeout=120).status) != 200:
                    raise SystemExit(f"the service answered {status}")
                rows.append(
                    {
                        "edits": edits,
                        "policies": policies,
                        "resident_mib": round(service.worker().memory_info().rss / 2**20),
                        "activation_seconds": round(seconds, 2),
                        "set_kib": round(len(wanted.canonical_bytes()) / 1024, 1),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
        finally:
            service.end()
    out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
