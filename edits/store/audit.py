"""The audit chain: each entry's hash covers the stored entry and the hash before it."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from edits.manifests import canonical_json, digest
from edits.store.records import AuditEntry, AuditEvent, storable
from edits.store.tables import audit, audit_tip

_EVENT_FIELDS = ("actor", "role", "action", "target", "outcome", "detail")
_TEXT_FIELDS = (*_EVENT_FIELDS, "at", "previous_hash")
_CHAIN_START = "sha256:" + "0" * 64


def append(connection: Connection, event: AuditEvent, *, at: datetime) -> AuditEntry:
    """Record `event` as the next link. The connection must hold a write transaction."""
    tip = connection.execute(select(audit_tip.c.entry, audit_tip.c.hash).with_for_update()).one()
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


def first_broken(connection: Connection) -> int | None:
    """The id of the first entry that is altered, missing or inserted; None when all hold.

    A missing entry is named by the id that it had.
    """
    expected, previous = 1, _CHAIN_START
    for row in connection.execute(select(audit).order_by(audit.c.id)).mappings():
        if row["id"] != expected:
            return min(int(row["id"]), expected)
        if row["previous_hash"] != previous or row["hash"] != _hash(row):
            return expected
        expected, previous = expected + 1, row["hash"]
    tip = connection.execute(select(audit_tip.c.entry, audit_tip.c.hash)).one()
    # The chain cannot show that its end was cut off or that entries were added past the library.
    if (tip.entry, tip.hash) != (expected - 1, previous):
        return min(int(tip.entry) + 1, expected)
    return None


def _hash(row: RowMapping | dict[str, Any]) -> str | None:
    """The hash that belongs to a stored row; None for values that were never recorded."""
    if not all(isinstance(row[field], str) for field in _TEXT_FIELDS):
        return None
    return digest(canonical_json({field: row[field] for field in ("id", *_TEXT_FIELDS)}))


def _entry(row: RowMapping | dict[str, Any]) -> AuditEntry:
    return AuditEntry(
        id=row["id"],
        at=datetime.fromisoformat(row["at"]),
        event=AuditEvent(**{field: row[field] for field in _EVENT_FIELDS}),
        previous_hash=row["previous_hash"],
        hash=row["hash"],
    )
