"""The audit chain: what is recorded, and how any change to it is found."""

import random
from threading import Thread

import pytest

from edits.store import AuditEvent

from .conftest import START

EVENT = AuditEvent("ana", "operator", "publish", "remove-pistol", "ok", "revision 1")


@pytest.fixture
def chain(store):
    """Ten entries."""
    for number in range(1, 11):
        store.record(AuditEvent("ana", "operator", "publish", f"edit-{number}", "ok"))
    return store


def test_an_event_is_kept_with_its_place_time_and_link(store):
    first, second = store.record(EVENT), store.record(EVENT)
    assert (first.id, first.at, first.event) == (1, START, EVENT)
    assert first.previous_hash == "sha256:" + "0" * 64
    assert second.previous_hash == first.hash
    assert second.hash != first.hash
    assert store.audit() == (second, first)


def test_entries_are_listed_newest_first_in_pages(chain):
    assert [entry.id for entry in chain.audit(limit=3)] == [10, 9, 8]
    assert [entry.id for entry in chain.audit(limit=3, before=8)] == [7, 6, 5]
    assert [entry.event.target for entry in chain.audit(limit=1)] == ["edit-10"]


def test_an_untouched_chain_holds(chain, store):
    assert chain.verify_audit().broken is None


def test_an_empty_chain_holds(store):
    assert store.verify_audit().broken is None


@pytest.mark.parametrize(
    "column",
    ["at", "actor", "role", "action", "target", "outcome", "detail", "previous_hash", "hash"],
)
@pytest.mark.parametrize("entry", [1, 6, 10])
def test_any_altered_field_breaks_the_chain_at_its_entry(chain, tamper, column, entry):
    tamper(f"UPDATE audit SET {column} = 'altered' WHERE id = ?", entry)
    assert chain.verify_audit().broken.entry == entry


def test_a_value_of_another_type_breaks_the_chain_at_its_entry(chain, tamper):
    tamper("UPDATE audit SET actor = x'616e61' WHERE id = 4")
    assert chain.verify_audit().broken.entry == 4


@pytest.mark.parametrize("entry", [1, 6, 10])
def test_a_removed_entry_is_named_also_when_it_was_the_last(chain, tamper, entry):
    tamper("DELETE FROM audit WHERE id = ?", entry)
    assert chain.verify_audit().broken.entry == entry


@pytest.mark.parametrize(("removed", "renumbered"), [(5, 6), (9, 10)])
def test_closing_the_gap_does_not_hide_a_removed_entry(chain, tamper, removed, renumbered):
    tamper("DELETE FROM audit WHERE id = ?", removed)
    tamper("UPDATE audit SET id = ? WHERE id = ?", removed, renumbered)
    assert chain.verify_audit().broken.entry == removed


@pytest.mark.parametrize("entry", [0, 11])
def test_an_inserted_entry_is_named(chain, tamper, entry):
    columns = "at, actor, role, action, target, outcome, detail, previous_hash, hash"
    tamper(f"INSERT INTO audit SELECT ?, {columns} FROM audit WHERE id = 1", entry)
    assert chain.verify_audit().broken.entry == entry


def test_the_first_of_several_broken_entries_is_named(chain, tamper):
    broken = random.Random(3).sample(range(1, 11), 3)
    for entry in broken:
        tamper("UPDATE audit SET outcome = 'altered' WHERE id = ?", entry)
    assert chain.verify_audit().broken.entry == min(broken)


def test_text_that_sql_cannot_hold_is_recorded_as_an_escape(store):
    """A refused call may carry any bytes, and that it was refused must still be recorded."""
    entry = store.record(AuditEvent("\ud800", "none", "publish", "a\0b", "refused", "x" * 10_000))
    assert (entry.event.actor, entry.event.target) == ("\\ud800", "a\\x00b")
    assert store.audit() == (entry,)
    assert store.verify_audit().broken is None


def test_threads_that_record_at_once_make_one_chain(store):
    def record():
        for _ in range(10):
            store.record(EVENT)

    threads = [Thread(target=record) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.id for entry in store.audit(limit=100)] == list(range(50, 0, -1))
    assert store.verify_audit().broken is None
