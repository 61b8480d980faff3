"""What happens when the database is away under load, and how soon the fleet converges after it.

    python -m benchmarks.outage                   # 60 s without PostgreSQL, two services

Two real services on the demo model draw for clients all the time. PostgreSQL is stopped, and after
`--seconds` started again; a new revision is published the moment that it answers. Exit code 1
when a request failed, a service was not ready or did not say how old its head is meanwhile, or a
service ran the new revision later than `--within` seconds after the database's return.
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer

from benchmarks.live_fleet import Clients, services
from edits.errors import StoreUnavailable
from edits.manifests import catalog_entry
from edits.serving import LocalService
from edits.store import RevisionStore


def look(service: LocalService) -> dict[str, Any]:
    """What one service says about itself while the database is away."""
    with service.client() as admin:
        status = admin.get("/admin/status").raise_for_status().json()
        return {
            "ready": admin.get("/readyz").status_code == httpx.codes.OK,
            "store_error": status["store_error"] is not None,
            "head_age_seconds": status["replica"]["head_age_seconds"],
        }


def publish(url: str) -> tuple[int, float]:
    """Publish as soon as the database answers; the revision, and when it answered first."""
    while True:
        try:
            with RevisionStore.open(url) as store:
                answered = time.monotonic()
                head = store.head()
                if head is None:
                    raise SystemExit("the store has lost its head")
                content = head.content.with_edit(catalog_entry("remove-pistol"))
                revision = store.publish_and_activate(
                    content, author="benchmark", reason="after the outage"
                )
                return revision.number, answered
        except StoreUnavailable:
            time.sleep(0.01)


def converged(fleet: list[LocalService], number: int, patience: float = 60) -> float:
    """time.monotonic() when the last service ran revision `number`; infinity if one did not."""
    deadline = time.monotonic() + patience
    waiting = list(fleet)
    while waiting and time.monotonic() < deadline:
        for service in list(waiting):
            with service.client() as admin:
                status = admin.get("/admin/status").raise_for_status().json()
            if status["replica"]["active_revision"] == number:
                waiting.remove(service)
    return float("inf") if waiting else time.monotonic()


def main(
    seconds: float = 60.0,
    clients: int = 4,
    within: float = 2.0,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Measure, print and check."""
    with services(2) as (fleet, server, url):
        drawing = Clients(fleet, clients)
        time.sleep(5)
        before = len(drawing.drawn)
        server.stop()
        time.sleep(seconds)
        during = len(drawing.drawn) - before
        seen = [look(service) for service in fleet]
        server.start()
        number, answered = publish(url)
        took = converged(fleet, number) - answered
        time.sleep(3)
        drawing.end()
    document = {
        "outage_seconds": seconds,
        "services": len(fleet),
        "clients": clients,
        "images_during_the_outage": during,
        "failed": len(drawing.failed),
        "while_away": seen,
        "converged_seconds_after_return": round(took, 3),
        "images_under_the_new_revision": sum(it.revision == number for it in drawing.drawn),
    }
    print(json.dumps(document, indent=2))
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n")
    told = all(it["ready"] and it["store_error"] and it["head_age_seconds"] > 0 for it in seen)
    if drawing.failed or not told or took > within or not during:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
