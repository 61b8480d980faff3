"""What goes into the store and comes out of it, as frozen values."""

from dataclasses import dataclass
from datetime import datetime

from edits.manifests import RevisionContent


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    """One line of the revision log, without its content. `parent` was the head at that moment."""

    number: int
    digest: str
    author: str
    reason: str
    created_at: datetime
    parent: int | None


@dataclass(frozen=True, slots=True)
class Revision(RevisionRecord):
    """A revision whose stored bytes have been checked against `digest`."""

    content: RevisionContent


@dataclass(frozen=True, slots=True)
class HeadPointer:
    """The head without its content: the cheap answer to poll for.

    Requests that run under a revision below `restart_below` are to start over.
    """

    number: int | None
    restart_below: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """What a replica says about itself. The store sets `heartbeat_at` when it takes the report.

    `oldest_running` is the lowest revision that a request still runs under, where that is below
    the active one. `lease_seconds`: without the store it serves no longer than this.
    """

    id: str
    host: str
    started_at: datetime
    active_revision: int | None = None
    active_digest: str | None = None
    wanted_revision: int | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    heartbeat_at: datetime | None = None
    oldest_running: int | None = None
    lease_seconds: float | None = None
    stopped_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Who (in which role) did what to which target, and how it ended."""

    actor: str
    role: str
    action: str
    target: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An event as recorded: numbered, dated, and chained to the entry before it by `hash`."""

    id: int
    at: datetime
    event: AuditEvent
    previous_hash: str
    hash: str


def storable(text: str) -> str:
    """`text` with what SQL text cannot hold (NUL, unpaired surrogates) written as an escape.

    A refused call may carry any bytes, and that it was refused must still be recorded.
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
