"""The revision store: revision log, head, replicas and audit chain in one SQL schema."""

from edits.store.fleet import HEARTBEAT_SECONDS, Fence, Laggard, standing
from edits.store.records import (
    Anchor,
    AuditEntry,
    AuditEvent,
    AuditVerdict,
    BrokenLink,
    HeadPointer,
    ReplicaReport,
    Revision,
    RevisionRecord,
    SignedBy,
)
from edits.store.store import ANY_HEAD, ExpectedHead, RevisionStore
from edits.store.watch import HeadWatch

__all__ = [
    "ANY_HEAD",
    "HEARTBEAT_SECONDS",
    "Anchor",
    "AuditEntry",
    "AuditEvent",
    "AuditVerdict",
    "BrokenLink",
    "ExpectedHead",
    "Fence",
    "HeadPointer",
    "HeadWatch",
    "Laggard",
    "ReplicaReport",
    "Revision",
    "RevisionRecord",
    "RevisionStore",
    "SignedBy",
    "standing",
]
