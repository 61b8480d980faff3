"""What the fault script checks after a fault: each loss is found, and nothing else is."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.aftermath import lost, users_back
from benchmarks.faults.clock import settable_clock
from benchmarks.faults.report import breaches, table
from benchmarks.faults.traffic import Acknowledged, Seen, p95
from edits.store import AuditEvent, RevisionStore
from tests.debian import packages
from tests.store.contents import content


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RevisionStore]:
    with RevisionStore.open(f"sqlite:///{tmp_path / 'store.db'}") as opened:
        for name in ("gun", "knife"):
            opened.publish_and_activate(content(name), author="a", reason="b")
        yield opened


def url_of(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'store.db'}"


def image(revision: int, *, asked: float, completed: float) -> Seen:
    return Seen("first", 200, asked, completed, revision)


def test_nothing_is_lost_when_every_acknowledged_revision_is_there(
    store: RevisionStore, tmp_path: Path
) -> None:
    told = Acknowledged(2, store.revision(2).digest, closed=True, at=10.0)
    seen = [image(1, asked=8.0, completed=9.9), image(2, asked=9.0, completed=11.0)]
    assert lost(url_of(tmp_path), [told], seen) == []


def test_a_revision_that_is_gone_or_another_set_is_found(
    store: RevisionStore, tmp_path: Path
) -> None:
    gone = Acknowledged(3, "sha256:" + "0" * 64, closed=False, at=1.0)
    other = Acknowledged(1, store.revision(2).digest, closed=False, at=1.0)
    first, second = lost(url_of(tmp_path), [gone, other], [])
    assert first == "acknowledged revision 3 is above the head 2"
    assert second == "revision 1 is another set than was acknowledged"


def test_an_old_image_after_a_closed_fence_is_found_and_after_an_open_one_is_not(
    store: RevisionStore, tmp_path: Path
) -> None:
    late = [image(1, asked=9.0, completed=10.5)]
    digest = store.revision(2).digest
    closed = Acknowledged(2, digest, closed=True, at=10.0)
    (found,) = lost(url_of(tmp_path), [closed], late)
    assert found == "an image of revision 1 came after a closed fence"
    assert lost(url_of(tmp_path), [Acknowledged(2, digest, False, 10.0)], late) == []


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        ([], 0.0),
        ([image(1, asked=9.0, completed=12.0)], 0.0),
        ([image(1, asked=9.0, completed=15.5)], 3.5),  # it took 6.5 s, and 5 may be
        ([Seen("first", 0, 9.0, 13.0), image(1, asked=13.0, completed=14.0)], 1.0),
        ([Seen("first", 500, 10.5, 11.0)], 0.0),  # while the fault lasted
        ([Seen("first", 0, 1.0, 9.0)], 0.0),  # before it began
    ],
)
def test_users_are_back_with_the_last_answer_that_was_none_or_late(
    seen: list[Seen], expected: float
) -> None:
    assert users_back(seen, 5.0, 10.0, 12.0) == pytest.approx(expected)


def test_a_broken_audit_chain_is_found(store: RevisionStore, tmp_path: Path) -> None:
    import sqlite3  # noqa: PLC0415 - this test alone goes behind the store's back

    event = AuditEvent(
        actor="ci", role="operator", action="x", target="", outcome="ok", detail="{}"
    )
    store.record(event)
    with sqlite3.connect(tmp_path / "store.db") as connection:
        triggers = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        for (name,) in triggers.fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE audit SET actor = 'nobody'")
    (found,) = lost(url_of(tmp_path), [], [])
    assert found.startswith("the audit chain breaks at")


def test_p95_counts_answered_requests_only() -> None:
    seen = [image(1, asked=0, completed=second) for second in range(1, 101)]
    assert p95([*seen, Seen("first", 0, 0, 1000.0)]) == pytest.approx(95.05)
    assert p95([Seen("first", 0, 0, 1.0)]) is None


GOOD: dict[str, Any] = {
    "answers": {"200": 30, "0": 2},
    "operator": {"201": 3, "200": 2, "503": 4},
    "p95_seconds": 2.5,
    "p95_seconds_after": 2.0,
    "lost": [],
    "users_back_seconds": 10.0,
    "replicas_back_seconds": 10.0,
}
OVERLOAD = {"statuses": {"200": 40, "429": 90}, "429_without_retry_after": 0}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lost": ["the log has a gap"]}, "the log has a gap"),
        ({"answers": {"200": 30, "500": 1}}, "users saw 1 x 500"),
        ({"operator": {"201": 3, "500": 5}}, "the operator saw 5 x 500"),
        ({"users_back_seconds": 10.1}, "users were back after 10.1 s, 10 s may be"),
        ({"replicas_back_seconds": None}, "replicas were back not at all"),
        ({**OVERLOAD, "statuses": {"200": 36}}, "no 429"),
        ({**OVERLOAD, "statuses": {"200": 36, "429": 1, "504": 1}}, "200 and 429: 504"),
        ({**OVERLOAD, "429_without_retry_after": 3}, "3 x 429 without Retry-After"),
        ({"not_refused": ["noise"]}, "not refused: noise"),
    ],
)
def test_each_thing_that_must_not_be_is_a_breach_of_its_own(
    change: dict[str, Any], words: str
) -> None:
    (breach,) = breaches({"a fault": {**GOOD, **change}}, within=10.0)
    assert breach.startswith("a fault: ") and words in breach


def test_what_a_fault_may_cost_is_no_breach() -> None:
    rows = {"one": GOOD, "two": {**GOOD, **OVERLOAD}, "three": {"skipped": "no tmpfs"}}
    assert list(breaches(rows, within=10.0)) == []


def test_the_table_shows_what_users_and_the_operator_saw() -> None:
    head, _line, row, skipped = table({"killed": GOOD, "disk": {"skipped": "no root"}}).splitlines()
    assert "| users saw | operator saw |" in head
    assert "| 2 x none, 30 x 200 | 2 x 200, 3 x 201, 4 x 503 |" in row
    assert row.count("|") == skipped.count("|") == head.count("|")


def test_a_process_whose_clock_is_set_sleeps_as_long_as_it_wants_to(tmp_path: Path) -> None:
    with packages():
        file, variables = settable_clock(tmp_path)
    file.write_text("-7200s")
    program = (
        "import time\n"
        "began = time.monotonic()\n"
        "time.sleep(0.2)\n"
        "print(time.time(), time.monotonic() - began)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    wall, slept = map(float, done.stdout.split())
    assert time.time() - wall == pytest.approx(7200, abs=60)
    assert slept == pytest.approx(0.2, abs=0.15)
