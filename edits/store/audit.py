"""The audit chain: each entry's hash covers the stored entry and the hash before it."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, true, update

from edits.errors import StoreCorrupt
from edits.manifests import canonical_json, digest
from edits.store.records import (
    Anchor,
    AuditEntry,
    AuditEvent,
    AuditVerdict,
    BrokenLink,
    storable,
)
from edits.store.tables import audit, audit_tip

_EVENT_FIELDS = ("actor", "role", "action", "target", "outcome", "detail")
_TEXT_FIELDS = (*_EVENT_FIELDS, "at", "previous_hash")
_START = Anchor(0, "sha256:" + "0" * 64)
# One statement, so that an entry which is recorded meanwhile stands in both tables or in neither;
# in batches, because a chain may be longer than memory.
_WITH_TIP = (
    select(audit, audit_tip.c.entry.label("tip_entry"), audit_tip.c.hash.label("tip_hash"))
    .select_from(audit_tip.outerjoin(audit, true()))
    .order_by(audit.c.id)
    .execution_options(yield_per=1000)
)


def append(connection: Connection, event: AuditEvent, *, at: datetime) -> AuditEntry:
    """Record `event` as the next link. The connection must hold a write transaction."""
    place = select(audit_tip.c.entry, audit_tip.c.hash).with_for_update()
    tip = connection.execute(place).one_or_none()
    if tip is None:
        raise StoreCorrupt("the record of the audit chain's end is gone; verify the audit chain")
    row: dict[str, Any] = {
        "id": tip.entry + 1,
        "at": at.astimezone(UTC).isoformat(timespec="microseconds"),
        **{field: storable(getattr(event, field)) for field in _EVENT_FIELDS},
        "previous_hash": tip.hash,
    }
    row["hash"] = _hash(row)
    connection.execute(insert(audit).values(row))
    connection.execute(update(audit_tip).values(entry=row["id"], hash=row["hash"]))
    return _entry(row)


def entries(connection: Connection, limit: int, before: int | None) -> tuple[AuditEntry, ...]:
    """The newest `limit` entries, newest first, with ids below `before`."""
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(audit.c.id < before)
    return tuple(_entry(row) for row in connection.execute(query).mappings())


def verify(connection: Connection, expect: Collection[Anchor] = ()) -> AuditVerdict:
    """Check every link from the first to the recorded end, and every anchor.

    Whoever may write the tables may also make every hash anew, from some entry to the end: then
    the chain holds again, and only an anchor that was noted elsewhere shows it.
    """
    noted: dict[int, set[object]] = {}
    for anchor in expect:
        noted.setdefault(anchor.entry, set()).add(anchor.hash)
    held, tip = _START, None
    for row in connection.execute(_WITH_TIP).mappings():
        # SQLite lets a column of numbers hold anything.
        tip = Anchor(row["tip_entry"], row["tip_hash"]) if _is_tip(row) else None
        if row["id"] is None or tip is None:
            break
        broken = _misplaced(row, held, tip) or _rewritten(row, held, tip, noted)
        if broken is not None:
            return AuditVerdict(held, broken)
        held = Anchor(row["id"], row["hash"])
    return AuditVerdict(held, _cut_off(held, tip, noted))


def _is_tip(row: RowMapping) -> bool:
    return isinstance(row["tip_entry"], int) and isinstance(row["tip_hash"], str)


def _misplaced(row: RowMapping, held: Anchor, tip: Anchor) -> BrokenLink | None:
    """Whether a row has another number than the one after `held`, up to which all is well."""
    entry, wanted = int(row["id"]), held.entry + 1
    if entry < wanted:
        return BrokenLink(entry, "inserted", "entries are numbered from 1")
    if wanted > tip.entry:
        reason = f"the chain was recorded to end with entry {tip.entry}"
        return BrokenLink(entry, "inserted", reason)
    if entry > wanted:
        return BrokenLink(wanted, "missing", f"the next entry that is there is {entry}")
    return None


def _rewritten(
    row: RowMapping, held: Anchor, tip: Anchor, noted: Mapping[int, set[object]]
) -> BrokenLink | None:
    """Whether the row in its place is another one than was recorded there."""
    entry: int = row["id"]
    if row["hash"] != _hash(row):
        return BrokenLink(entry, "altered", "its hash is not that of what is stored")
    if row["previous_hash"] != held.hash:
        culprits = f"{held.entry} or {entry}" if held.entry else str(entry)
        reason = f"it does not follow the entry before it: {culprits} was written anew"
        return BrokenLink(entry, "replaced", reason)
    if entry == tip.entry and row["hash"] != tip.hash:
        reason = "another hash was recorded for the end of the chain"
        return BrokenLink(entry, "replaced", reason)
    if noted.get(entry, {row["hash"]}) != {row["hash"]}:
        reason = "it is not the entry that was noted: it or one before it was written anew"
        return BrokenLink(entry, "replaced", reason)
    return None


def _cut_off(held: Anchor, tip: Anchor | None, noted: Collection[int]) -> BrokenLink | None:
    """What is wrong with a chain that ends with `held`, all of whose entries are well."""
    if tip is None:
        return BrokenLink(held.entry + 1, "missing", "the record of the chain's end is gone")
    if tip.entry > held.entry:
        reason = f"the chain was recorded to end with entry {tip.entry}"
        return BrokenLink(held.entry + 1, "cut_off", reason)
    last = max(noted, default=0)
    if last > held.entry:
        return BrokenLink(held.entry + 1, "cut_off", f"entry {last} was noted and is not there")
    if tip != held:  # only where there is no entry: `_rewritten` compares all others
        return BrokenLink(1, "missing", "another end of the chain was recorded")
    return None


def _hash(row: RowMapping | dict[str, Any]) -> str | None:
    """The hash that belongs to a stored row; None for values that were never recorded."""
    if not all(isinstance(row[field], str) for field in _TEXT_FIELDS):
        return None
    return digest(canonical_json({field: row[field] for field in ("id", *_TEXT_FIELDS)}))


def _entry(row: RowMapping | dict[str, Any]) -> AuditEntry:
    try:
        if not all(isinstance(row[field], str) for field in (*_TEXT_FIELDS, "hash")):
            raise ValueError("not text")
        at = datetime.fromisoformat(row["at"])
    except ValueError:
        raise StoreCorrupt(
            f"audit entry {row['id']} holds what was never recorded; verify the audit chain"
        ) from None
    return AuditEntry(
        id=row["id"],
        at=at,
        event=AuditEvent(**{field: row[field] for field in _EVENT_FIELDS}),
        previous_hash=row["previous_hash"],
        hash=row["hash"],
    )
