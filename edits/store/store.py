"""The revision store: the log that all replicas follow, and the record of who changed it."""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Final, Literal, Self

from sqlalchemy import Connection, func, select

from edits.errors import HeadMoved
from edits.manifests import RevisionContent, digest
from edits.store import audit, fleet, log, replicas, rollouts
from edits.store.database import Database
from edits.store.migrate import migrate, schema_version
from edits.store.records import (
    Anchor,
    AuditEntry,
    AuditEvent,
    AuditVerdict,
    HeadPointer,
    ReplicaReport,
    Revision,
    RevisionRecord,
    SignedBy,
)
from edits.store.rollouts import Rollouts
from edits.store.watch import HeadWatch


class _NoCheck(Enum):
    ANY_HEAD = "any head"


_FORGOTTEN = timedelta(days=7)  # every restart of a pod is another replica

ANY_HEAD: Final = _NoCheck.ANY_HEAD
ExpectedHead = int | None | Literal[_NoCheck.ANY_HEAD]


class RevisionStore:
    """An append-only log of revisions with a head that only moves forward, in an SQL database.

    Every method is one transaction on a connection of its own, so a store may be shared by threads.
    Each raises StoreUnavailable when the database fails.

    `expected_head` makes a write conditional: the number of the head that the caller has seen, None
    for "no head yet", or ANY_HEAD. Of several writers that saw the same head exactly one succeeds;
    the others get HeadMoved with the number to start over from.
    """

    def __init__(self, database: Database, clock: Callable[[], datetime] | None) -> None:
        self._database = database
        self._clock = clock
        self.rollouts = Rollouts(database, self._now)

    @classmethod
    def open(cls, url: str, *, clock: Callable[[], datetime] | None = None) -> Self:
        """Open the store at `url`, creating or upgrading its schema. Raises StoreUnavailable.

        Moments are those of `clock`, by default the database's own: one clock for a whole fleet.
        """
        database = Database(url)
        try:
            migrate(database)
        except BaseException:
            database.close()
            raise
        return cls(database, clock)

    def close(self) -> None:
        """Close every connection."""
        self._database.close()

    def schema_version(self) -> str:
        """The schema that the database has, as its newest migration is called."""
        with self._database.read() as connection:
            return schema_version(connection) or ""

    def grant(self, user: str) -> None:
        """Give a database user the rights of a replica; the store's own user must be the owner.

        Raises StoreUnavailable, also for SQLite, which has no users.
        """
        with self._database.write() as connection:
            self._database.kind.grant(connection, user)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def publish(
        self,
        content: RevisionContent,
        *,
        author: str,
        reason: str,
        expected_head: ExpectedHead = ANY_HEAD,
        signed: SignedBy | None = None,
    ) -> Revision:
        """Add a revision to the log without making it the head.

        Content that the head or the newest revision already holds is not added again: that
        revision is returned; with another envelope it is another signed set. For the head's own
        content this is so whatever head was expected: a publish may be repeated after a lost
        answer. Raises HeadMoved.
        """
        return self._append(
            content.canonical_bytes(),
            author,
            reason,
            expected_head,
            activate=False,
            signed=signed,
        )

    def publish_and_activate(
        self,
        content: RevisionContent,
        *,
        author: str,
        reason: str,
        expected_head: ExpectedHead = ANY_HEAD,
        urgent: bool = False,
        signed: SignedBy | None = None,
    ) -> Revision:
        """`publish` and `activate` in one transaction. Raises HeadMoved."""
        return self._append(
            content.canonical_bytes(),
            author,
            reason,
            expected_head,
            activate=True,
            urgent=urgent,
            signed=signed,
        )

    def activate(
        self, number: int, *, expected_head: ExpectedHead = ANY_HEAD, urgent: bool = False
    ) -> Revision:
        """Move the head forward to `number`; nothing happens when it is there already.

        Urgent: requests that run under an older revision start over under this one.
        Raises RevisionNotFound, HeadMoved when the head is not the expected one or is newer, and
        like every move of the head RolloutOpen while another revision is on trial, unless urgent.
        """
        with self._database.write() as connection:
            current = log.locked_head(connection)
            if current != number:
                _check(expected_head, current)
            self._move_head(connection, number, urgent=urgent)
            return log.revision(connection, number)

    def rollback(
        self,
        to: int,
        *,
        author: str,
        reason: str,
        expected_head: ExpectedHead = ANY_HEAD,
        urgent: bool = False,
    ) -> Revision:
        """Publish the content of revision `to`, byte for byte, as a new revision; make it the head.

        Raises RevisionNotFound, HeadMoved.
        """
        # Stored content never changes, so it may be read before the write transaction.
        with self._database.read() as connection:
            content = log.content_bytes(connection, to)
        return self._append(content, author, reason, expected_head, activate=True, urgent=urgent)

    def _append(
        self,
        content: bytes,
        author: str,
        reason: str,
        expected_head: ExpectedHead,
        *,
        activate: bool,
        urgent: bool = False,
        signed: SignedBy | None = None,
    ) -> Revision:
        with self._database.write() as connection:
            current = log.locked_head(connection)
            number = log.reusable(connection, digest(content), signed)
            if number is None or number != current:
                _check(expected_head, current)
            if number is None:
                now = self._now(connection)
                number = log.append(
                    connection, content, author=author, reason=reason, at=now, signed=signed
                )
                replicas.forget(connection, before=now - _FORGOTTEN)
            if activate:
                self._move_head(connection, number, urgent=urgent)
            return log.revision(connection, number)

    def _move_head(self, connection: Connection, number: int, *, urgent: bool) -> None:
        rollouts.make_way(connection, number, now=self._now, urgent=urgent)
        log.move_head(connection, number, urgent=urgent)

    def head(self) -> Revision | None:
        """The revision that all replicas must run; None before the first. Raises StoreCorrupt."""
        with self._database.read() as connection:
            number = log.head_number(connection)
            return None if number is None else log.revision(connection, number)

    def pointer(self) -> HeadPointer:
        """The head's number, what is urgent about it, and the revision on trial beside it: the
        cheap question to poll with.
        """
        with self._database.read() as connection:
            return rollouts.pointer(connection)

    def head_number(self) -> int | None:
        """The head's number alone."""
        return self.pointer().number

    def watch(self, on_change: Callable[[], None]) -> HeadWatch:
        """Call `on_change` on a thread of its own soon after each change, until it is closed."""
        return HeadWatch(self._database, on_change)

    def revision(self, number: int) -> Revision:
        """One revision. Raises RevisionNotFound, StoreCorrupt."""
        with self._database.read() as connection:
            return log.revision(connection, number)

    def envelope(self, number: int) -> bytes | None:
        """The signatures of a revision, not verified; None for one that was not signed."""
        with self._database.read() as connection:
            return log.envelope(connection, number)

    def revisions(self, limit: int = 50, before: int | None = None) -> tuple[RevisionRecord, ...]:
        """Up to `limit` lines of the log below the number `before`, newest first."""
        with self._database.read() as connection:
            return log.records(connection, limit, before)

    def acknowledge(self, report: ReplicaReport) -> ReplicaReport:
        """Keep a replica's report, dated by the store's clock, in place of its last one."""
        with self._database.write() as connection:
            return replicas.acknowledge(connection, report, at=self._now(connection))

    def replicas(self) -> tuple[ReplicaReport, ...]:
        """The last report of every replica, sorted by id."""
        with self._database.read() as connection:
            return replicas.reports(connection)

    def fence(
        self, revision: int, seconds: float, *, given_up: Callable[[], bool] = lambda: False
    ) -> fleet.Fence:
        """Wait until nothing below `revision` runs, for so many seconds, or until `given_up`."""

        def look() -> tuple[Sequence[ReplicaReport], datetime]:
            with self._database.read() as connection:
                return replicas.reports(connection), self._now(connection)

        return fleet.wait(look, revision, seconds, given_up)

    def now(self) -> datetime:
        """The store's clock: what heartbeats are dated by."""
        with self._database.read() as connection:
            return self._now(connection)

    def _now(self, connection: Connection) -> datetime:
        if self._clock is not None:
            return self._clock()
        if connection.dialect.name == "sqlite":
            return datetime.now(UTC)  # one machine, one clock
        now: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)

    def record(self, event: AuditEvent) -> AuditEntry:
        """Append an event to the audit chain."""
        with self._database.write() as connection:
            return audit.append(connection, event, at=self._now(connection))

    def audit(self, limit: int = 50, before: int | None = None) -> tuple[AuditEntry, ...]:
        """Up to `limit` audit entries below the id `before`, newest first."""
        with self._database.read() as connection:
            return audit.entries(connection, limit, before)

    def verify_audit(self, expect: Collection[Anchor] = ()) -> AuditVerdict:
        """Whether the whole audit chain holds, with what was noted of it elsewhere."""
        with self._database.read() as connection:
            return audit.verify(connection, expect)


def _check(expected: ExpectedHead, actual: int | None) -> None:
    if expected is ANY_HEAD or expected == actual:
        return
    found = "there is no head yet" if actual is None else f"the head is revision {actual}"
    base = "an empty log" if expected is None else f"revision {expected}"
    raise HeadMoved(
        f"{found}, but this change is based on {base}; read the head and redo the change on it",
        expected=expected,
        actual=actual,
    )
