"""The fence: after its answer no image of an older revision leaves any replica."""

import threading
import time
from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pytest

from edits.errors import StoreUnavailable
from edits.store import ReplicaReport
from service.generation.request import GenerationRequest
from service.settings import Settings

from .pictures import pixels
from .replica import Replica, manifest

LONG = 150  # steps: long enough to be overtaken


@pytest.fixture
def fleet(store_url, tmp_path, settings: Settings, start_replica: Callable[[Settings], Replica]):
    """Two replicas on one store; polling is slow, so that only the store's word is fast."""
    return [
        start_replica(
            settings.model_copy(
                update={
                    "store": store_url,
                    "state_dir": tmp_path / name,
                    "replica": name,
                    "poll_seconds": 3.0,
                }
            )
        )
        for name in ("one", "two")
    ]


class Drawing(threading.Thread):
    """A long request in the background, and when its answer had come."""

    def __init__(self, replica: Replica) -> None:
        super().__init__()
        self._replica = replica
        self.start()
        deadline = time.monotonic() + 30
        while not replica.runtime.engine.running and time.monotonic() < deadline:
            time.sleep(0.001)

    def run(self) -> None:
        self.answer = self._replica.draw(steps=LONG)
        self.ended = time.monotonic()


def revision_of(answer) -> int:
    assert answer.status_code == 200, answer.text
    return int(answer.headers["X-QuickFix-Revision"])


def test_a_publish_reaches_every_replica_without_waiting_for_a_poll(fleet):
    one, two = fleet
    started = time.monotonic()
    answer = one.publish(manifest(), wait=20)
    assert answer.status_code == 201, answer.text
    assert time.monotonic() - started < 3.0, "slower than two polls: nobody was told"
    fence = answer.json()["fence"]
    assert (fence["closed"], fence["replicas"], fence["laggards"]) == (True, 2, [])
    assert revision_of(two.draw()) == answer.json()["revision"] == 2


def test_the_answer_comes_after_the_last_image_of_an_older_revision(fleet):
    one, two = fleet
    drawing = Drawing(two)
    answer = one.publish(manifest(), wait=60)
    answered = time.monotonic()
    drawing.join()
    assert answer.status_code == 201
    assert revision_of(drawing.answer) == 1
    assert drawing.ended <= answered + 0.02  # two threads that hear of it at one moment


def test_without_a_wait_the_answer_does_not_wait_for_others(fleet):
    one, two = fleet
    drawing = Drawing(two)
    answer = one.publish(manifest())
    assert drawing.is_alive()
    assert answer.status_code == 201
    assert "fence" not in answer.json()
    drawing.join()


def test_a_wait_that_is_too_short_names_the_replica_and_why(fleet):
    one, two = fleet
    drawing = Drawing(two)
    answer = one.publish(manifest(), wait=0.3)
    assert drawing.is_alive()
    assert answer.status_code == 202
    (laggard,) = answer.json()["fence"]["laggards"]
    assert (laggard["id"], laggard["standing"]) == ("two", "live")
    assert laggard["reason"] == "a request still runs under revision 1"
    assert laggard["oldest_running"] == 1
    drawing.join()
    again = one.publish(manifest(), wait=20)  # the same content: the same revision, and the fence
    assert (again.status_code, again.json()["revision"]) == (201, 2)


def test_an_urgent_revision_restarts_what_runs_from_its_seed(fleet):
    one, two = fleet
    drawing = Drawing(two)
    answer = one.publish(manifest(), wait=60, urgency="immediate")
    assert answer.status_code == 201
    assert drawing.is_alive(), "the answer waited for the whole image"
    drawing.join()
    assert revision_of(drawing.answer) == 2
    assert np.array_equal(pixels(drawing.answer), pixels(two.draw(steps=LONG)))


def test_a_normal_revision_after_an_urgent_one_restarts_nothing(fleet):
    one, two = fleet
    one.publish(manifest(), wait=20, urgency="immediate")
    drawing = Drawing(two)
    assert one.remove("remove-pistol").status_code == 200
    drawing.join()
    assert revision_of(drawing.answer) == 2


def test_an_abandoned_request_does_not_hold_the_fence(fleet):
    one, two = fleet
    job = two.runtime.engine.submit(GenerationRequest("a cat", (1,), LONG, 3.0, 64, 64))
    while not two.runtime.engine.running:
        time.sleep(0.001)
    two.runtime.engine.abandon(job, "client_left")
    job.release()
    assert one.publish(manifest(), wait=20).status_code == 201
    assert two.runtime.activator.runs.oldest() is None


@pytest.mark.parametrize(
    ("silent", "lease", "stopped", "late"),
    [
        (20, None, False, True),  # it may serve all the same
        (1000, None, False, False),  # taken for dead
        (20, 30.0, False, True),
        (40, 30.0, False, False),  # it serves no longer than its lease
        (20, None, True, False),  # it said so
    ],
)
def test_a_silent_replica_counts_until_it_cannot_serve_any_more(
    fleet, silent, lease, stopped, late
):
    one, _ = fleet
    store = one.runtime.store
    past = store.now() - timedelta(seconds=silent)
    report = ReplicaReport(
        "lost",
        "elsewhere",
        started_at=past,
        active_revision=1,
        lease_seconds=lease,
        stopped_at=past if stopped else None,
    )
    clock, store._clock = store._clock, lambda: past
    store.acknowledge(report)
    store._clock = clock
    answer = one.publish(manifest(), wait=3 if late else 20)
    assert answer.status_code == (202 if late else 201)
    names = [laggard["id"] for laggard in answer.json()["fence"]["laggards"]]
    assert names == (["lost"] if late else [])


def test_a_replica_that_stops_counts_no_more(fleet):
    one, two = fleet
    two.runtime.stop()
    (report,) = [report for report in one.runtime.store.replicas() if report.id == "two"]
    assert report.stopped_at is not None
    answer = one.publish(manifest(), wait=20)
    assert (answer.status_code, answer.json()["fence"]["replicas"]) == (201, 1)


def test_a_replica_that_starts_looks_again_after_it_has_said_what_it_will_run(
    fleet, settings, start_replica, tmp_path, monkeypatch
):
    """Between its first look at the head and its report a fence may have closed without it."""
    one, _ = fleet
    store = type(one.runtime.store)
    acknowledge, published = store.acknowledge, []

    def overtaken(self, report):
        if report.id == "three" and not published:
            published.append(True)
            assert one.publish(manifest(), wait=20).status_code == 201
        return acknowledge(self, report)

    monkeypatch.setattr(store, "acknowledge", overtaken)
    update = {"store": one.runtime.settings.store, "state_dir": tmp_path / "3", "replica": "three"}
    three = start_replica(settings.model_copy(update=update))
    assert published
    assert three.runtime.activator.runs.current.revision == 2


def test_a_run_that_two_threads_end_at_once_is_counted_once(fleet):
    """The engine and the edge both end a run: a count below zero would open a fence too early."""
    runs = fleet[0].runtime.activator.runs
    other = runs.begin()
    for _ in range(200):
        run = runs.begin()
        together = threading.Barrier(2)

        def end(run=run, together=together):
            together.wait()
            run.end()

        threads = [threading.Thread(target=end) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert dict(runs._counts) == {1: 1}
    other.end()
    assert dict(runs._counts) == {}


def test_a_fence_that_the_store_cannot_tell_of_names_the_revision_that_is_published(
    fleet, monkeypatch
):
    one = fleet[0]

    def away(_revision, _seconds, **_given_up):
        raise StoreUnavailable("postgresql://user@host: the connection was reset")

    monkeypatch.setattr(one.runtime.store, "fence", away)
    answer = one.publish(manifest(), wait=5)
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, "activation_failed")
    message = answer.json()["error"]["message"]
    assert "revision 2 is published and the head" in message
    assert "postgresql" not in message
    assert one.runtime.store.head_number() == 2


def test_a_roll_back_that_expects_another_head_is_refused(fleet):
    one = fleet[0]
    one.publish(manifest())
    answer = one.client.post(
        "/admin/rollback", params={"expected_head": 1}, json={"to": 1}, headers=one.operator
    )
    assert (answer.status_code, answer.json()["error"]["type"]) == (409, "head_moved")
    assert one.runtime.store.head_number() == 2
    answer = one.client.post(
        "/admin/rollback", params={"expected_head": 2}, json={"to": 1}, headers=one.operator
    )
    assert (answer.status_code, answer.json()["revision"]) == (200, 3)
