"""Every tampering with the audit chain that can be seen from inside is named; the rest by anchors.

Random chains, one random tampering each, done in SQL past the library as an intruder would.
"""

import shutil
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edits.errors import StoreCorrupt
from edits.manifests import canonical_json, digest
from edits.store import Anchor, AuditEvent, RevisionStore
from edits.store.audit import append
from edits.store.database import Database

from .conftest import START

HASHED = ("id", "at", "actor", "role", "action", "target", "outcome", "detail", "previous_hash")
COLUMNS = (*HASHED, "hash")
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
EVENTS = st.lists(st.builds(AuditEvent, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT), min_size=1, max_size=7)
random_chains = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass
class Chain:
    """A recorded chain and an intruder's connection to its tables."""

    store: RevisionStore
    sql: sqlite3.Connection
    length: int
    anchors: dict[int, Anchor] = field(default_factory=dict)

    def row(self, entry):
        return self.sql.execute("SELECT * FROM audit WHERE id = ?", (entry,)).fetchone()

    def set(self, entry, **values):
        names = ", ".join(f"{name} = ?" for name in values)
        changed = self.sql.execute(
            f"UPDATE audit SET {names} WHERE id = ?", (*values.values(), entry)
        )
        assert changed.rowcount == 1

    def delete(self, first, last):
        self.sql.execute("DELETE FROM audit WHERE id BETWEEN ? AND ?", (first, last))

    def move_tip(self, entry):
        row = self.row(entry) if entry else {"hash": "sha256:" + "0" * 64}
        self.sql.execute("UPDATE audit_tip SET entry = ?, hash = ?", (entry, row["hash"]))

    def rehash(self, entry):
        """Make the hash of one entry anew, as who knows the formula can."""
        row = self.row(entry)
        self.set(entry, hash=digest(canonical_json({name: row[name] for name in HASHED})))

    def found(self, *anchors):
        """Number and kind of the first broken entry; None when the chain holds."""
        self.sql.commit()
        verdict = self.store.verify_audit([self.anchors[entry] for entry in anchors])
        if verdict.broken is None:
            return None
        assert verdict.last.entry < max(verdict.broken.entry, 1)
        return verdict.broken.entry, verdict.broken.kind


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    path = tmp_path_factory.mktemp("empty") / "store.db"
    RevisionStore.open(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def recorded(empty):
    @contextmanager
    def record(events):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "store.db"
            shutil.copy(empty, path)
            url = f"sqlite:///{path}"
            database = Database(url)
            with database.write() as connection:  # one transaction: the disk is waited for once
                entries = [
                    append(connection, event, at=START + timedelta(seconds=number))
                    for number, event in enumerate(events)
                ]
            database.close()
            with RevisionStore.open(url) as store, closing(sqlite3.connect(path)) as sql:
                sql.execute("PRAGMA synchronous = OFF")
                sql.row_factory = sqlite3.Row
                names = sql.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
                for (name,) in names.fetchall():
                    sql.execute(f"DROP TRIGGER {name}")
                anchors = {entry.id: Anchor(entry.id, entry.hash) for entry in entries}
                yield Chain(store, sql, len(entries), anchors)

    return record


def some_entry(data, chain, first=1):
    return data.draw(st.integers(first, chain.length), label="entry")


@random_chains
@given(EVENTS)
def test_an_untouched_chain_holds_with_every_anchor(recorded, events):
    with recorded(events) as chain:
        assert chain.found(*chain.anchors) is None
        assert chain.store.verify_audit().last == chain.anchors[chain.length]


@random_chains
@given(EVENTS, st.sampled_from(COLUMNS[1:]), TEXT, st.data())
def test_an_altered_field_is_named(recorded, events, column, value, data):
    with recorded(events) as chain:
        entry = some_entry(data, chain)
        changed = value if value != chain.row(entry)[column] else value + "x"
        chain.set(entry, **{column: changed})
        assert chain.found() == (entry, "altered")


@random_chains
@given(EVENTS, st.integers(-3, 12), st.data())
def test_a_renumbered_entry_is_named(recorded, events, number, data):
    with recorded(events) as chain:
        entry = some_entry(data, chain)
        if 1 <= number <= chain.length:
            number = chain.length + number
        chain.set(entry, id=number)
        assert chain.found() == ((number, "inserted") if number < 1 else (entry, "missing"))


@random_chains
@given(EVENTS, st.data())
def test_a_removed_entry_is_named(recorded, events, data):
    with recorded(events) as chain:
        entry = some_entry(data, chain)
        chain.delete(entry, entry)
        assert chain.found() == (entry, "cut_off" if entry == chain.length else "missing")


@random_chains
@given(EVENTS.filter(lambda events: len(events) > 1), st.data())
def test_of_two_swapped_entries_the_first_is_named(recorded, events, data):
    with recorded(events) as chain:
        second = some_entry(data, chain, first=2)
        first = data.draw(st.integers(1, second - 1))
        for old, new in ((first, -1), (second, first), (-1, second)):
            chain.set(old, id=new)
        assert chain.found() == (first, "altered")


@random_chains
@given(EVENTS, st.booleans(), st.booleans())
def test_a_forged_entry_at_the_end_is_named_unless_all_of_it_fits(
    recorded, events, hashed, tip_moved
):
    with recorded(events) as chain:
        last = chain.length
        forged = dict(chain.row(last)) | {"id": last + 1, "previous_hash": chain.row(last)["hash"]}
        marks = ", ".join("?" for _ in COLUMNS)
        values = [forged[name] for name in COLUMNS]
        chain.sql.execute(f"INSERT INTO audit ({', '.join(COLUMNS)}) VALUES ({marks})", values)
        if hashed:
            chain.rehash(last + 1)
        if tip_moved:
            chain.move_tip(last + 1)
        # Who may write the tables may also record: a forgery that fits is no broken chain.
        kind = "altered" if tip_moved else "inserted"
        seen = None if hashed and tip_moved else (last + 1, kind)
        assert chain.found() == chain.found(*chain.anchors) == seen


@random_chains
@given(EVENTS, st.data())
def test_an_end_that_is_cut_off_is_named_and_with_the_tip_moved_along_by_an_anchor_only(
    recorded, events, data
):
    with recorded(events) as chain:
        first = some_entry(data, chain)
        chain.delete(first, chain.length)
        assert chain.found() == (first, "cut_off")
        chain.move_tip(first - 1)
        assert chain.found() is None
        for anchor in chain.anchors:
            assert chain.found(anchor) == ((first, "cut_off") if anchor >= first else None)


@random_chains
@given(EVENTS, TEXT, st.data())
def test_an_entry_that_was_written_anew_breaks_the_link_behind_it(recorded, events, text, data):
    with recorded(events) as chain:
        entry = some_entry(data, chain)
        chain.set(entry, actor=chain.row(entry)["actor"] + text + "x")
        chain.rehash(entry)
        assert chain.found() == (min(entry + 1, chain.length), "replaced")
        assert chain.found(entry) == (entry, "replaced")


@random_chains
@given(EVENTS, st.data())
def test_a_chain_that_was_written_anew_to_its_end_is_found_by_an_anchor_only(
    recorded, events, data
):
    with recorded(events) as chain:
        first = some_entry(data, chain)
        chain.set(first, outcome=chain.row(first)["outcome"] + "x")
        for entry in range(first, chain.length + 1):
            if entry > first:
                chain.set(entry, previous_hash=chain.row(entry - 1)["hash"])
            chain.rehash(entry)
        chain.move_tip(chain.length)
        assert chain.found() is None
        for anchor in chain.anchors:
            assert chain.found(anchor) == ((anchor, "replaced") if anchor >= first else None)


@random_chains
@given(EVENTS, st.integers(-2, 12))
def test_a_tip_that_was_moved_alone_is_found(recorded, events, tip):
    with recorded(events) as chain:
        moved = tip if tip != chain.length else chain.length + 1
        chain.sql.execute("UPDATE audit_tip SET entry = ?", (moved,))
        expected = chain.length + 1, "cut_off"
        if moved < chain.length:
            # Where the tip still points at an entry, that one has another hash than the tip.
            expected = (moved, "replaced") if moved >= 1 else (1, "inserted")
        assert chain.found() == expected


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM audit_tip",
        "UPDATE audit_tip SET entry = 'x'",
        "UPDATE audit_tip SET hash = x'00'",
    ],
)
def test_a_tip_that_is_gone_or_no_tip_is_found(recorded, statement):
    with recorded([AuditEvent("a", "b", "c", "d", "e")]) as chain:
        chain.sql.execute(statement)
        assert chain.found() == (1, "missing")


def test_nothing_is_recorded_behind_a_tip_that_is_gone(recorded):
    event = AuditEvent("a", "b", "c", "d", "e")
    with recorded([event]) as chain:
        chain.sql.execute("DELETE FROM audit_tip")
        chain.sql.commit()
        with pytest.raises(StoreCorrupt, match="end is gone"):
            chain.store.record(event)


@pytest.mark.parametrize("column", ["at", "actor", "hash"])
def test_entries_that_were_never_recorded_are_refused_where_they_are_listed(recorded, column):
    with recorded([AuditEvent("a", "b", "c", "d", "e")]) as chain:
        chain.set(1, **{column: b"\xff"})
        chain.sql.commit()
        with pytest.raises(StoreCorrupt, match="audit entry 1 holds what was never recorded"):
            chain.store.audit()


def test_two_anchors_of_one_entry_cannot_both_hold(recorded):
    with recorded([AuditEvent("a", "b", "c", "d", "e")]) as chain:
        other = Anchor(1, "sha256:" + "f" * 64)
        for anchors in ([chain.anchors[1], other], [other, chain.anchors[1]]):
            assert chain.store.verify_audit(anchors).broken.kind == "replaced"


def test_an_anchor_is_read_as_it_is_written():
    anchor = Anchor(12, "sha256:" + "a" * 64)
    assert Anchor.parse(str(anchor)) == anchor
    for text in (
        "",
        "12",
        "12:",
        "0:" + anchor.hash,
        "12:" + "a" * 64,
        f"{anchor}\n",
        f" {anchor}",
    ):
        with pytest.raises(ValueError, match="ID:HASH"):
            Anchor.parse(text)
