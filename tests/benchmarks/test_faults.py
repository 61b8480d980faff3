"""What the fault script checks after a fault: each loss is found, and nothing else is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.faults.aftermath import lost, users_back
from benchmarks.faults.traffic import Acknowledged, Seen, p95
from edits.store import AuditEvent, RevisionStore
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
