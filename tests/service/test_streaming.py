"""`stream: true`: server-sent events in OpenAI's shape, with steps, previews and one outcome."""

import asyncio
import base64
import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from service.api.awaited import Awaited
from service.generation.job import Event, Job, Stepped
from service.generation.request import Generated, GenerationRequest
from service.generation.running import preview_passes
from service.settings import Settings

from .pictures import picture
from .replica import Replica, manifest

IMAGES = "/v1/images/generations"


def stream(replica: Replica, **fields: Any) -> Any:
    body = {"prompt": "a photo of a cat", "stream": True, **fields}
    return replica.client.post(IMAGES, json=body)


def events(answer: Any) -> list[dict[str, Any]]:
    found = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        document = json.loads(data.removeprefix("data: "))
        assert name == f"event: {document.get('type', 'error')}"
        found.append(document)
    return found


def image(event: dict[str, Any]) -> Any:
    return picture(base64.b64decode(event["b64_json"]))


def outcome(name: str) -> float:
    return REGISTRY.get_sample_value("quickfix_requests_total", {"outcome": name}) or 0.0


def test_every_step_is_told_and_the_image_is_that_of_the_plain_answer(shared: Replica) -> None:
    ok = outcome("ok")
    answer = stream(shared, seed=5, steps=4)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["X-QuickFix-Revision"] == "1"
    *progress, completed = events(answer)
    assert [event["type"] for event in progress] == ["image_generation.progress"] * 4
    assert [(event["step"], event["steps"]) for event in progress] == [
        (1, 4),
        (2, 4),
        (3, 4),
        (4, 4),
    ]
    assert completed["type"] == "image_generation.completed"
    assert (completed["seed"], completed["size"], completed["revision"]) == (5, "32x32", 1)
    plain = picture(shared.draw("a photo of a cat", seed=5, steps=4).content)
    assert np.array_equal(np.asarray(image(completed)), np.asarray(plain))
    stamped = image(completed).text
    assert stamped["X-QuickFix-Digest"] == completed["digest"]
    assert stamped["X-Request-Id"] == answer.headers["X-Request-Id"]
    assert outcome("ok") == ok + 2


def test_previews_come_closer_to_the_image(shared: Replica) -> None:
    found = events(stream(shared, seed=5, steps=20, partial_images=3))
    previews = [event for event in found if event["type"] == "image_generation.partial_image"]
    assert [event["partial_image_index"] for event in previews] == [0, 1, 2]
    assert [event["step"] for event in previews] == [5, 10, 15]
    last = np.asarray(image(found[-1])).astype(int)
    distances = [np.abs(np.asarray(image(event)).astype(int) - last).mean() for event in previews]
    assert distances[0] > distances[1] > distances[2] > 0
    assert {"b64_json", "background", "created_at", "output_format", "quality", "size"} <= set(
        previews[0]
    )


def test_several_images_are_completed_in_the_order_of_their_seeds(shared: Replica) -> None:
    found = events(stream(shared, seed=7, steps=3, n=3))
    completed = [event for event in found if event["type"] == "image_generation.completed"]
    assert [(event["index"], event["seed"]) for event in completed] == [(0, 7), (1, 8), (2, 9)]
    assert sum(event["type"] == "image_generation.progress" for event in found) == 9


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"partial_images": 4}, 400, "partial_images"),
        ({"stream": False, "partial_images": 1}, 400, "partial_images"),
        ({"policy": "no-such"}, 400, "policy"),
        ({"prompt": "cat " * 100}, 400, "prompt"),
    ],
)
def test_what_is_refused_has_its_own_status_and_is_no_stream(
    shared: Replica, fields: dict[str, Any], status: int, param: str
) -> None:
    answer = stream(shared, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


def test_a_full_queue_refuses_a_stream_with_429(settings: Settings, start_replica: Any) -> None:
    replica = start_replica(settings.model_copy(update={"max_queue": 1, "max_batch": 1}))
    engine = replica.runtime.engine
    long = GenerationRequest("a cat", (1,), 150, 3.0, 32, 32)
    jobs = [engine.submit(long)]
    until = time.monotonic() + 20
    while engine.running == 0:
        assert time.monotonic() < until
    jobs.append(engine.submit(long))
    answer = stream(replica)
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    for job in jobs:
        engine.abandon(job, "client_left")


def test_a_failure_on_the_way_is_the_last_event_in_the_one_error_shape(
    shared: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = outcome("failed")
    decoder = shared.runtime.engine._loop._decoder

    def broken(_latents: object) -> None:
        raise RuntimeError("the VAE is broken")

    monkeypatch.setattr(decoder, "decode", broken)
    answer = stream(shared, steps=3)
    assert answer.status_code == 200
    *_, last = events(answer)
    assert last["error"]["type"] == "generation_failed"
    assert "broken" not in answer.text
    assert outcome("failed") == failed + 1


def test_an_urgent_revision_starts_a_stream_over_and_says_so(replica: Replica) -> None:
    """Every event names the revision that it belongs to; the image is of the new one."""
    answers: list[Any] = []
    drawing = threading.Thread(target=lambda: answers.append(stream(replica, steps=150, seed=3)))
    drawing.start()
    until = time.monotonic() + 20
    while replica.runtime.engine.running == 0:
        assert time.monotonic() < until
    answer = replica.publish(manifest(), wait=30, urgency="immediate")
    assert answer.status_code == 201
    drawing.join()
    found = events(answers[0])
    revisions = [event["revision"] for event in found]
    assert revisions == sorted(revisions)
    assert (revisions[0], revisions[-1]) == (1, 2)
    of_new = [event["step"] for event in found if event["revision"] == 2 and "step" in event]
    assert of_new == list(range(1, 151))


@pytest.mark.parametrize(
    ("steps", "previews", "after"),
    [(20, 3, (5, 10, 15)), (4, 3, (1, 2, 3)), (2, 3, (1,)), (1, 3, ()), (50, 0, ())],
)
def test_previews_are_spread_evenly_and_none_is_of_the_last_step(
    steps: int, previews: int, after: tuple[int, ...]
) -> None:
    assert preview_passes(steps, previews) == after


@pytest.mark.parametrize("seconds_left", [60.0, -1.0])
def test_what_happened_while_the_event_loop_was_busy_is_told_before_the_end(
    seconds_left: float,
) -> None:
    """Also when the deadline has passed since: the image is there, and its reader was slow."""
    wanted = GenerationRequest("a cat", (1,), 2, 1.0, 32, 32)
    told = (Stepped(0, 1, 2), Stepped(0, 2, 2))

    class Engine:
        def submit(self, request: GenerationRequest, listener: Any) -> Job:
            deadline = time.monotonic() + seconds_left
            self.job = Job(request, deadline=deadline, listener=listener)
            return self.job

        def abandon(self, _job: Job, _cause: str) -> None:
            raise AssertionError("it was answered")

    async def never() -> Any:
        await asyncio.Event().wait()

    async def listen() -> list[Event]:
        engine = Engine()
        request = SimpleNamespace(state=SimpleNamespace(), receive=never)
        awaited = Awaited(SimpleNamespace(engine=engine), request, wanted)  # type: ignore[arg-type]

        def draw() -> None:
            for event in told:
                engine.job.tell(event)
            engine.job.settle(Generated(wanted, (), 1, "sha256:0", 0.0))

        thread = threading.Thread(target=draw)
        thread.start()
        thread.join()  # the event loop does nothing meanwhile
        return [event async for event in awaited.events()]

    assert tuple(asyncio.run(listen())) == told
