"""A stream event by event: what may leave once a revision overtook it, or its client left."""

import asyncio
import json
import threading
import time
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.types import Message

from service.api.app import create_api
from service.settings import Settings

from .replica import Replica, manifest

# Seconds of work, most of it after the first two previews.
LONG = {"prompt": "a pistol", "stream": True, "steps": 150, "n": 10, "partial_images": 3}


class Stream(threading.Thread):
    """A client that takes its time over the first preview, and leaves when it is told to."""

    def __init__(self, replica: Replica, body: dict[str, Any] = LONG) -> None:
        super().__init__(daemon=True)
        api, self._edge = create_api()
        api.state.runtime = replica.runtime
        self._body = json.dumps(body).encode()
        self.events: list[tuple[dict[str, Any], float]] = []  # and when they had left
        self.at_preview, self.read_on, self.leave = (threading.Event() for _ in range(3))
        self.start()

    def run(self) -> None:
        headers = [(b"content-type", b"application/json")]
        path = "/v1/images/generations"
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        scope |= {"raw_path": path.encode(), "query_string": b"", "http_version": "1.1"}
        asyncio.run(self._edge({**scope, "scheme": "http"}, self._receive, self._send))

    def kinds(self, revision: int) -> set[str]:
        found = [event for event, _ in tuple(self.events) if event["revision"] == revision]
        return {event["type"].removeprefix("image_generation.") for event in found}

    async def _receive(self) -> Message:
        if self._body:
            body, self._body = self._body, b""
            return {"type": "http.request", "body": body, "more_body": False}
        while not self.leave.is_set():  # no thread: it would outlive the stream
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        _, _, data = message.get("body", b"").partition(b"data: ")
        if not data:
            return
        event = json.loads(data)
        if event["type"] == "image_generation.partial_image":
            self.at_preview.set()
            while not self.read_on.is_set():
                await asyncio.sleep(0.01)
        self.events.append((event, time.monotonic()))


@pytest.fixture
def replica(settings: Settings, start_replica: Any) -> Replica:
    replica: Replica = start_replica(settings.model_copy(update={"max_batch": 1}))
    return replica


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def wait_until(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_no_preview_of_an_older_revision_leaves_after_the_fence_of_an_urgent_one(
    replica: Replica,
) -> None:
    decoded = sample("quickfix_decode_seconds_count")
    stream = Stream(replica)
    assert stream.at_preview.wait(30)
    wait_until(lambda: sample("quickfix_decode_seconds_count") >= decoded + 3)  # others queue up
    restarts, waits = map(sample, ("quickfix_restarts_total", "quickfix_queue_wait_seconds_count"))
    replica.publish(manifest(), wait=0, urgency="immediate")
    wait_until(lambda: sample("quickfix_restarts_total") == restarts + 1)
    answer = replica.publish(manifest(), wait=1)
    assert sample("quickfix_queue_wait_seconds_count") == waits, "it waited once, and then drew"
    assert answer.status_code == 202, "a preview was still leaving"
    (laggard,) = answer.json()["fence"]["laggards"]
    assert laggard["reason"] == "a request still runs under revision 1"
    stream.read_on.set()
    assert replica.publish(manifest(), wait=30).status_code == 201
    closed = time.monotonic()
    wait_until(lambda: "partial_image" in stream.kinds(2))
    stream.leave.set()
    stream.join(20)
    old = [at for event, at in stream.events if event["revision"] == 1 and "b64_json" in event]
    assert len(old) == 1
    assert old[0] <= closed


def test_a_stream_that_its_client_leaves_counts_as_cancelled(replica: Replica) -> None:
    name = "quickfix_request_seconds_count"
    before = sample(name, outcome="cancelled")
    requests = sample("quickfix_requests_total", outcome="cancelled")
    for at_preview in (False, True):  # it waits for an event, or for its client
        stream = Stream(replica)
        wait_until(lambda: stream.events)  # noqa: B023 - called here only
        if at_preview:
            assert stream.at_preview.wait(30)
        stream.leave.set()
        stream.join(20)
        wait_until(lambda: replica.runtime.engine.running == 0)
    assert sample(name, outcome="cancelled") == before + 2
    assert sample("quickfix_requests_total", outcome="cancelled") == requests + 2
    assert dict(replica.runtime.activator.runs._counts) == {}
