"""Four policies mixed in one stream, against all of it under one policy.

The policies are over two real edits, so three of the four have text encoders of their own. Some
requests of each stream are drawn alone before, and must give the same image in the crowd; under the
policy without edits that image must be diffusers' own.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from benchmarks.serving.bench import Bench, in_turn
from benchmarks.serving.load import Broken, Load, closed_loop
from benchmarks.serving.references import References
from benchmarks.serving.report import Bound, Row
from benchmarks.serving.servers import QUICKFIX, Server
from benchmarks.serving.statistics import Spread, ratios
from benchmarks.serving.workload import ImageRequest, under_policies

__all__ = ["measure"]

EDITS = ("remove-pistol", "remove-van-gogh")
UNEDITED = "unedited"
POLICIES = {
    "both": EDITS,
    "pistol": EDITS[:1],
    "van-gogh": EDITS[1:],
    UNEDITED: (),
}
_CATALOG = Path("edits/manifests/catalog")
ONE, FOUR = "one policy", "four policies"


def measure(bench: Bench) -> list[Row]:
    """The same requests in the same order on one service, in turn."""
    plan = bench.plan
    streams = {
        ONE: under_policies(bench.mixed, ("both",)),
        FOUR: under_policies(bench.mixed, tuple(POLICIES)),
    }
    loads: dict[str, list[Load]] = {name: [] for name in streams}
    server = bench.server(QUICKFIX)
    _publish(server)
    compared = [r for stream in streams.values() for r in stream[: max(4, len(stream) // 8)]]
    references = _drawn_alone(bench, server, compared)
    for repeat, name in in_turn(plan.repeats + 1, tuple(streams)):
        load = closed_loop(server.url, streams[name], clients=plan.clients, references=references)
        if repeat:  # the first of each warms
            loads[name].append(load)
    _withdraw(server)
    one, four = (Spread(tuple(load.throughput for load in loads[name])) for name in (ONE, FOUR))
    return [
        Row(
            "policies",
            f"throughput, four policies mixed: {four.median:.2f} images/s",
            f"one policy: {one.median:.2f} images/s",
            Bound("at least", 0.97),
            four.median / one.median,
            ratios(four, one),
            details={
                "policies": {name: list(edits) for name, edits in POLICIES.items()},
                "images_per_second": {ONE: one.document(), FOUR: four.document()},
                "loads": {name: [load.document() for load in loads[name]] for name in loads},
            },
        )
    ]


def _publish(server: Server) -> None:
    """Both edits, then the policies over them. Raises Broken when one is refused."""
    with server.admin() as admin:
        for name in EDITS:
            manifest = (_CATALOG / f"{name}.yaml").read_bytes()
            _require(admin.post("/admin/edits", content=manifest))
        for name, edits in POLICIES.items():
            _require(admin.put("/admin/policies", json={"name": name, "edits": list(edits)}))


def _withdraw(server: Server) -> None:
    """Back to the revision without edits: what is measured next is compared with diffusers."""
    with server.admin() as admin:
        _require(admin.post("/admin/rollback", json={"to": 1, "reason": "measured"}))


def _require(answer: httpx.Response) -> None:
    if answer.status_code not in {httpx.codes.OK, httpx.codes.CREATED}:
        raise Broken(f"an admin call was answered with {answer.status_code}: {answer.text[:200]}")


def _drawn_alone(bench: Bench, server: Server, requests: Sequence[ImageRequest]) -> References:
    """The service's own images of the requests, one after the other. Raises Broken."""
    images = {}
    with httpx.Client(base_url=server.url, timeout=120.0) as client:
        for request in dict.fromkeys(requests):
            answer = client.post("/generate", json=request.body)
            _require(answer)
            images[request] = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"))
    for request, image in images.items():
        if request.policy == UNEDITED:
            own = np.asarray(bench.in_process.draw(replace(request, policy=None)).convert("RGB"))
            difference = int(np.abs(own.astype(np.int16) - image).max())
            if difference > bench.plan.may_differ:
                raise Broken(f"under no edit a channel differs by {difference} from diffusers'")
    return References.write(
        images, bench.folder / "references-policies.npz", may_differ=bench.plan.may_differ
    )
