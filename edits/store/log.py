"""The revision log and its head, as SQL on a given connection.

Every writer first takes the head row (`locked_head`): SQLite's write lock already stands behind
it, and on PostgreSQL the row lock does the same work.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, LargeBinary, RowMapping, cast, func, insert, select, update

from edits.errors import HeadMoved, QuickFixError, RevisionNotFound, StoreCorrupt
from edits.manifests import RevisionContent, digest
from edits.store.records import HeadPointer, Revision, RevisionRecord, SignedBy, storable
from edits.store.tables import envelopes, head, revisions

_RECORD_COLUMNS = (
    revisions.c.number,
    revisions.c.digest,
    revisions.c.author,
    revisions.c.reason,
    revisions.c.created_at,
    revisions.c.parent,
    revisions.c.expires_at,
)


def pointer(connection: Connection) -> HeadPointer:
    """The head's number and below which revision requests are to start over."""
    row = connection.execute(select(head.c.number, head.c.restart_below)).one()
    return HeadPointer(row.number, row.restart_below)


def head_number(connection: Connection) -> int | None:
    """The number that all replicas must run; None before the first activation."""
    return connection.scalar(select(head.c.number))


def locked_head(connection: Connection) -> int | None:
    """The head's number, held until the transaction ends, so that no other writer moves it."""
    return connection.scalar(select(head.c.number).with_for_update())


def newest_number(connection: Connection) -> int | None:
    """The highest number in the log, active or not."""
    number: int | None = connection.scalar(select(func.max(revisions.c.number)))
    return number


def revision(connection: Connection, number: int) -> Revision:
    """A revision with verified content. Raises RevisionNotFound, StoreCorrupt."""
    row = _verified_row(connection, number)
    try:
        content = RevisionContent.from_bytes(row["content"])
    except QuickFixError as error:
        raise StoreCorrupt(
            f"revision {number} holds content that this version cannot read: {error.message}; "
            "run the version that published it, or a later one"
        ) from error
    return Revision(**_record_fields(row), content=content)


def content_bytes(connection: Connection, number: int) -> bytes:
    """The verified bytes of a revision's content. Raises RevisionNotFound, StoreCorrupt."""
    content: bytes = _verified_row(connection, number)["content"]
    return content


def records(connection: Connection, limit: int, before: int | None) -> tuple[RevisionRecord, ...]:
    """The newest `limit` lines of the log, newest first, with numbers below `before`."""
    query = select(*_RECORD_COLUMNS).order_by(revisions.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(revisions.c.number < before)
    rows = connection.execute(query).mappings()
    return tuple(RevisionRecord(**_record_fields(row)) for row in rows)


def reusable(
    connection: Connection, content_digest: str, signed: SignedBy | None = None
) -> int | None:
    """The head, or else the newest revision, when it holds that very content and envelope."""
    wanted = None if signed is None else signed.envelope
    candidates = (head_number(connection), newest_number(connection))
    for number in candidates:
        if number is None:
            continue
        stored = select(revisions.c.digest).where(revisions.c.number == number)
        same = connection.scalar(stored) == content_digest
        if same and envelope(connection, number) == wanted:
            return number
    return None


def envelope(connection: Connection, number: int) -> bytes | None:
    """The signatures of a revision's content; None for one that was not signed."""
    stored: bytes | None = connection.scalar(
        select(envelopes.c.envelope).where(envelopes.c.revision == number)
    )
    return stored


def append(
    connection: Connection,
    content: bytes,
    *,
    author: str,
    reason: str,
    at: datetime,
    signed: SignedBy | None = None,
) -> int:
    """Add a revision after the newest one and return its number. Does not move the head."""
    number = (newest_number(connection) or 0) + 1
    connection.execute(
        insert(revisions).values(
            number=number,
            content=content,
            digest=digest(content),
            parent=head_number(connection),
            author=storable(author),
            reason=storable(reason),
            created_at=at,
            expires_at=None if signed is None else signed.expires,
        )
    )
    if signed is not None:
        connection.execute(insert(envelopes).values(revision=number, envelope=signed.envelope))
    return number


def move_head(connection: Connection, number: int, *, urgent: bool = False) -> None:
    """Make `number` the head. Raises RevisionNotFound, and HeadMoved when the head is newer.

    Urgent: requests that run under an older revision are to start over.
    """
    current = pointer(connection)
    restart_below = number if urgent else current.restart_below
    if (current.number, current.restart_below) == (number, restart_below):
        return
    if connection.scalar(select(revisions.c.number).where(revisions.c.number == number)) is None:
        raise _missing(connection, number)
    if current.number is not None and number < current.number:
        raise HeadMoved(
            f"revision {number} is older than the head {current.number}, and the head only moves "
            f"forward; roll back to {number} instead, which publishes its content anew",
            expected=number,
            actual=current.number,
        )
    connection.execute(update(head).values(number=number, restart_below=restart_below))


def _missing(connection: Connection, number: int) -> RevisionNotFound:
    """The error that says which numbers there are."""
    newest = newest_number(connection)
    held = f"the log holds 1 to {newest}" if newest else "the log is empty"
    return RevisionNotFound(f"there is no revision {number}; {held}", param="revision")


def _record_fields(row: RowMapping) -> dict[str, Any]:
    return {column.name: row[column.name] for column in _RECORD_COLUMNS}


def _verified_row(connection: Connection, number: int) -> RowMapping:
    # The cast keeps altered content comparable: in SQLite any column may come to hold text.
    content = cast(revisions.c.content, LargeBinary).label("content")
    query = select(*_RECORD_COLUMNS, content).where(revisions.c.number == number)
    row = connection.execute(query).mappings().one_or_none()
    if row is None:
        raise _missing(connection, number)
    actual = digest(row["content"])
    if actual != row["digest"]:
        raise StoreCorrupt(
            f"the stored content of revision {number} has the digest {actual}, "
            f"not {row['digest']}; restore the store from a backup"
        )
    return row
