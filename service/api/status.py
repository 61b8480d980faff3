"""The answer of `GET /admin/status`: the head, this replica, and every replica of the store."""

from datetime import UTC, datetime
from typing import Any

from edits.errors import StoreError
from edits.store import ReplicaReport, standing
from service.errors import describe
from service.runtime import Runtime

__all__ = ["status_document"]


def status_document(runtime: Runtime) -> dict[str, Any]:
    """What runs where. Answers also while the store is away, and says so."""
    now = datetime.now(UTC)
    document: dict[str, Any] = {
        "head": None,
        "rollout": None,
        "replica": _this_replica(runtime, now),
        "replicas": [],
        "directory": _directory(runtime),
        "trust": _trust(runtime),
        "store_error": None,
    }
    try:
        head = runtime.store.head()
        rollout = runtime.store.pointer().rollout
        reports, heard_until = runtime.store.replicas(), runtime.store.now()
    except StoreError as error:
        document["store_error"] = describe(error).message
        return document
    number = None if head is None else head.number
    if head is not None:
        document["head"] = {
            "revision": head.number,
            "digest": head.digest,
            "author": head.author,
            "reason": head.reason,
            "created_at": _time(head.created_at),
        }
    document["rollout"] = None if rollout is None else rollout.document()
    document["replicas"] = [_replica(report, number, heard_until) for report in reports]
    return document


def _this_replica(runtime: Runtime, now: datetime) -> dict[str, Any]:
    state = runtime.activator.state
    active = state.active
    return {
        "id": runtime.settings.replica,
        "ready": runtime.ready,
        "draining": runtime.engine.draining,
        "active_revision": None if active is None else active.revision,
        "active_digest": None if active is None else active.digest,
        "activated_at": None if active is None else _time(active.activated_at),
        "wanted_revision": state.wanted,
        "head_age_seconds": (
            None if state.head_read_at is None else (now - state.head_read_at).total_seconds()
        ),
        "stale": runtime.activator.stale,
        "canary": state.canary,
        "last_error": state.last_error,
        "last_error_at": _time(state.last_error_at),
        "rejected_digest": state.rejected_digest,
        "waiting": runtime.engine.waiting,
        "running": runtime.engine.running,
    }


def _replica(report: ReplicaReport, head: int | None, now: datetime) -> dict[str, Any]:
    heard = report.heartbeat_at or report.started_at
    silent = (now - heard).total_seconds()
    active = report.active_revision
    # A canary is ahead of the head, and lags behind nothing.
    lag = None if head is None or active is None else max(0, head - active)
    return {
        "id": report.id,
        "host": report.host,
        "live": standing(report, now) == "live",
        "standing": standing(report, now),
        "silent_seconds": round(silent, 3),
        "active_revision": active,
        "active_digest": report.active_digest,
        "wanted_revision": report.wanted_revision,
        "oldest_running": report.oldest_running,
        "lag": lag,
        "last_error": report.last_error,
        "last_error_at": _time(report.last_error_at),
        "rejected_digest": report.rejected_digest,
    }


def _trust(runtime: Runtime) -> dict[str, Any] | None:
    if runtime.trust is None:
        return None
    signed = runtime.activator.signed
    return {**runtime.trust.document(), "set": None if signed is None else signed.document()}


def _directory(runtime: Runtime) -> dict[str, Any] | None:
    if runtime.directory is None:
        return None
    status = runtime.directory.status
    return {
        "edits": list(status.edits),
        "last_sync_at": _time(status.last_sync_at),
        "last_error": status.last_error,
        "last_error_at": _time(status.last_error_at),
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
