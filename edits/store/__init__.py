"""The revision store: revision log, head, replicas and audit chain in one SQL schema."""

from edits.store.fleet import HEARTBEAT_SECONDS, SILENT_SECONDS, Fence, Laggard, standing
from edits.store.records import (
    MAX_SOAK_SECONDS,
    SOAK_SECONDS,
    Anchor,
    AuditEntry,
    AuditEvent,
    AuditVerdict,
    BrokenLink,
    HeadPointer,
    ReplicaReport,
    Revision,
    RevisionRecord,
    Rollout,
    RolloutPlan,
    SignedBy,
)
from edits.store.store import ANY_HEAD, ExpectedHead, RevisionStore
from edits.store.watch import HeadWatch

__all__ = [
    "ANY_HEAD",
    "HEARTBEAT_SECONDS",
    "MAX_SOAK_SECONDS",
    "SILENT_SECONDS",
    "SOAK_SECONDS",
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
    "Rollout",
    "RolloutPlan",
    "SignedBy",
    "standing",
]
