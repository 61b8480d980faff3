"""The revision store: revision log, head, replicas and audit chain in one SQL schema."""

from edits.store.records import (
    AuditEntry,
    AuditEvent,
    ReplicaReport,
    Revision,
    RevisionRecord,
)
from edits.store.store import ANY_HEAD, ExpectedHead, RevisionStore

__all__ = [
    "ANY_HEAD",
    "AuditEntry",
    "AuditEvent",
    "ExpectedHead",
    "ReplicaReport",
    "Revision",
    "RevisionRecord",
    "RevisionStore",
]
