"""The revision store: revision log, head, replicas and audit chain in one SQL schema."""

from edits.store.records import (
    Anchor,
    AuditEntry,
    AuditEvent,
    AuditVerdict,
    BrokenLink,
    ReplicaReport,
    Revision,
    RevisionRecord,
)
from edits.store.store import ANY_HEAD, ExpectedHead, RevisionStore

__all__ = [
    "ANY_HEAD",
    "Anchor",
    "AuditEntry",
    "AuditEvent",
    "AuditVerdict",
    "BrokenLink",
    "ExpectedHead",
    "ReplicaReport",
    "Revision",
    "RevisionRecord",
    "RevisionStore",
]
