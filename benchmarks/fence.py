"""Does an image of an older revision ever come after the answer of a fence?

    python -m benchmarks.fence                    # two services, 8 clients, 50 activations
    python -m benchmarks.fence --no-fence         # the same without `wait`: images do come late
    python -m benchmarks.fence --urgent           # running requests start over instead

Two real services on the demo model follow one PostgreSQL. Clients draw without a pause on both
while an operator publishes and withdraws an edit, each time through the other service, with
`wait`. An image is late when it completes after the answer that closed the fence of a newer
revision. Exit code 1 when one is, or when a request or an activation failed.
"""

import json
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from benchmarks.live_fleet import Clients, Drawn, services
from edits.serving import LocalService

EDIT: dict[str, Any] = {
    "apiVersion": "quickfix/v1",
    "kind": "ConceptEdit",
    "metadata": {"name": "fenced", "version": 1},
    "spec": {
        "concept": "pistol",
        "anchor": "toy",
        "type": "object",
        "method": {"tokens": "last+pad", "ridge": 30, "preserve_weight": 0.05, "pad_weight": 1},
    },
}


def operate(
    fleet: list[LocalService], activations: int, params: dict[str, Any]
) -> list[dict[str, Any]]:
    """Publish and withdraw in turn through the services in turn; what was answered, and when."""
    answered = []
    for number in range(activations):
        with fleet[number % len(fleet)].client() as admin:
            asked = time.monotonic()
            if number % 2:
                answer = admin.delete("/admin/edits", params={"name": "fenced", **params})
            else:
                answer = admin.post("/admin/edits", json=EDIT, params=params)
            at = time.monotonic()
        answer.raise_for_status()
        document = answer.json()
        answered.append(
            {
                "revision": document["revision"],
                "at": at,
                "seconds": at - asked,
                "closed": document.get("fence", {}).get("closed", True),
            }
        )
    return answered


def late_images(drawn: list[Drawn], answered: list[dict[str, Any]]) -> list[float]:
    """Seconds after the answer, of each image that a closed fence should have held back."""
    late = []
    for image in drawn:
        after = [
            image.completed_at - answer["at"]
            for answer in answered
            if answer["closed"]
            and answer["revision"] > image.revision
            and answer["at"] < image.completed_at
        ]
        if after:
            late.append(max(after))
    return late


def main(
    activations: int = 50,
    clients: int = 8,
    fence: Annotated[bool, typer.Option(help="Ask for the fence.")] = True,
    urgent: Annotated[bool, typer.Option(help="Running requests start over.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Measure, print and check."""
    params: dict[str, Any] = {"wait": 60} if fence else {}
    if urgent:
        params["urgency"] = "immediate"
    with services(2) as (fleet, _, _):
        drawing = Clients(fleet, clients)
        time.sleep(2)
        try:
            answered = operate(fleet, activations, params)
        finally:
            drawing.end()
    late = late_images(drawing.drawn, answered)
    seconds = sorted(answer["seconds"] for answer in answered)
    document = {
        "fence": fence,
        "urgent": urgent,
        "services": len(fleet),
        "clients": clients,
        "activations": len(answered),
        "fences_closed": sum(answer["closed"] for answer in answered),
        "images": len(drawing.drawn),
        "failed": len(drawing.failed),
        "late_images": len(late),
        "latest_seconds": round(max(late), 3) if late else None,
        "answer_seconds_median": round(median(seconds), 3),
        "answer_seconds_max": round(seconds[-1], 3),
        "image_seconds_median": round(
            median(image.completed_at - image.asked_at for image in drawing.drawn), 3
        ),
    }
    print(json.dumps(document, indent=2))
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n")
    if late or drawing.failed or document["fences_closed"] != len(answered):
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
