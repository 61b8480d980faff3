"""What replicas say about themselves."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy.exc import StatementError

from edits.store import ReplicaReport

from .conftest import START
from .contents import content

REPORT = ReplicaReport(id="pod-1", host="node-a", started_at=START - timedelta(hours=1))


def test_a_report_is_kept_and_dated_by_the_store(store):
    kept = store.acknowledge(replace(REPORT, active_revision=3, active_digest="sha256:3"))
    assert kept.heartbeat_at == START
    assert store.replicas() == (kept,)
    assert (kept.active_revision, kept.active_digest, kept.last_error) == (3, "sha256:3", None)


def test_a_later_report_takes_the_place_of_the_earlier_one(store):
    failed = replace(REPORT, wanted_revision=4, last_error="x\0y", last_error_at=START)
    store.acknowledge(failed)
    assert store.replicas()[0].last_error == "x\\x00y"
    store.acknowledge(replace(REPORT, active_revision=4, wanted_revision=4))
    (report,) = store.replicas()
    assert (report.active_revision, report.last_error, report.last_error_at) == (4, None, None)
    assert report.heartbeat_at == START + timedelta(seconds=1)


def test_replicas_are_listed_by_id(store):
    for name in ("pod-2", "pod-3", "pod-1"):
        store.acknowledge(replace(REPORT, id=name))
    assert [report.id for report in store.replicas()] == ["pod-1", "pod-2", "pod-3"]


def test_a_moment_of_another_zone_comes_back_as_the_same_moment_in_utc(store):
    elsewhere = datetime(2026, 1, 1, 5, 30, 0, 123456, timezone(timedelta(hours=5)))
    store.acknowledge(replace(REPORT, started_at=elsewhere))
    (report,) = store.replicas()
    assert report.started_at == elsewhere
    assert report.started_at.utcoffset() == timedelta(0)


def test_a_moment_without_a_zone_is_refused(store):
    with pytest.raises(StatementError, match="has no time zone"):
        store.acknowledge(replace(REPORT, started_at=datetime(2026, 1, 1)))
    assert store.replicas() == ()


def test_replicas_that_were_not_heard_for_a_week_are_forgotten_with_the_next_revision(
    store, monkeypatch
):
    store.acknowledge(replace(REPORT, id="long-gone"))
    monkeypatch.setattr(store, "_clock", lambda: START + timedelta(days=8))
    store.acknowledge(replace(REPORT, id="new"))
    assert [report.id for report in store.replicas()] == ["long-gone", "new"]
    store.publish(content("a"), author="ana", reason="test")
    assert [report.id for report in store.replicas()] == ["new"]
