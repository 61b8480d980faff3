"""Who counts in a fleet, and when a fence is closed."""

import time
from datetime import timedelta

import pytest

from edits.errors import StoreUnavailable
from edits.store import ReplicaReport, standing
from edits.store.fleet import laggards, wait

from .conftest import START
from .contents import content

LIVE, SILENT, DEAD = (timedelta(seconds=s) for s in (12, 13, 901))


def report(silent=timedelta(0), **fields):
    given = {"active_revision": 4, **fields}
    return ReplicaReport("r", "host", START, heartbeat_at=START - silent, **given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (report(), "live"),
        (report(LIVE), "live"),
        (report(SILENT), "silent"),
        (report(DEAD), "gone"),
        (report(SILENT, lease_seconds=13.0), "silent"),
        (report(SILENT, lease_seconds=12.5), "gone"),
        (report(DEAD, lease_seconds=1000.0), "silent"),
        (report(stopped_at=START), "gone"),
    ],
)
def test_standing(given, expected):
    assert standing(given, START) == expected


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (report(active_revision=5), None),
        (report(active_revision=6), None),
        (report(active_revision=None), None),
        (report(active_revision=4), "runs revision 4"),
        (report(SILENT), "runs revision 4"),
        (report(DEAD), None),
        (report(last_error="non_finite: no"), "runs revision 4: non_finite: no"),
        (
            report(active_revision=5, oldest_running=3),
            "a request still runs under revision 3",
        ),
        (report(active_revision=6, oldest_running=5), None),
    ],
)
def test_a_fence_of_revision_5_names_who_may_still_answer_with_an_older_one(given, reason):
    found = laggards([given], 5, START)
    assert [laggard.reason for laggard in found] == ([] if reason is None else [reason])


def test_a_fence_is_looked_at_even_without_time(store):
    fence = store.fence(1, 0.0)
    assert (fence.closed, fence.replicas, fence.laggards) == (True, 0, ())


def test_a_fence_outlasts_a_store_that_is_away_for_a_moment():
    answers = iter([StoreUnavailable("gone"), StoreUnavailable("gone"), ([report()], START)])

    def look():
        answer = next(answers)
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer

    fence = wait(look, 4, 5.0, lambda: False)
    assert (fence.closed, fence.replicas) == (True, 1)


def test_a_fence_whose_store_stays_away_says_so_in_time():
    def look():
        raise StoreUnavailable("gone")

    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        wait(look, 4, 0.2, lambda: False)
    assert 0.2 <= time.monotonic() - started < 2


def test_an_urgent_activation_is_kept_with_the_head_and_never_taken_back(store):
    by = {"author": "ana", "reason": "test"}
    store.publish_and_activate(content("a"), **by)
    assert store.pointer().restart_below == 0
    number = store.publish(content("b"), **by).number
    store.activate(number, urgent=True)
    assert (store.pointer().number, store.pointer().restart_below) == (2, 2)
    store.publish_and_activate(content("c"), **by)
    assert (store.pointer().number, store.pointer().restart_below) == (3, 2)
    store.activate(3, urgent=True)  # it is the head already, and now it is urgent
    assert store.pointer().restart_below == 3
    store.activate(3)
    assert store.pointer().restart_below == 3
    store.rollback(1, **by, urgent=True)
    assert (store.pointer().number, store.pointer().restart_below) == (4, 4)
