"""The replicas as a fleet: who counts, and whether all of them have left an old revision.

A replica that is silent may still serve. It stops counting only when it said that it stopped, when
its lease has ended (it serves no longer than that without the store), or, without a lease, after
so long that it is taken for dead.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from edits.errors import StoreUnavailable
from edits.store.records import ReplicaReport

__all__ = [
    "HEARTBEAT_SECONDS",
    "SILENT_SECONDS",
    "Fence",
    "Laggard",
    "Standing",
    "laggards",
    "standing",
    "wait",
]

HEARTBEAT_SECONDS = 3.0
SILENT_SECONDS = 4 * HEARTBEAT_SECONDS  # a replica that missed so many counts as silent
_DEAD_SECONDS = 900.0  # silent for so long without a lease: taken for dead
_PAUSE_SECONDS = 0.02  # between two looks at the reports while a fence waits

Standing = Literal["live", "silent", "gone"]


@dataclass(frozen=True, slots=True)
class Laggard:
    """A replica that keeps a fence from closing, and why."""

    id: str
    host: str
    standing: Standing
    active_revision: int | None
    oldest_running: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Fence:
    """Whether nothing older than `revision` runs any more; if not, who is in the way."""

    revision: int
    seconds: float
    replicas: int  # that count
    laggards: tuple[Laggard, ...]

    @property
    def closed(self) -> bool:
        """Nothing older runs, and nothing older will be started."""
        return not self.laggards

    def document(self) -> dict[str, Any]:
        """As JSON shows it."""
        return {
            "revision": self.revision,
            "closed": self.closed,
            "seconds": round(self.seconds, 3),
            "replicas": self.replicas,
            "laggards": [
                {
                    "id": laggard.id,
                    "host": laggard.host,
                    "standing": laggard.standing,
                    "active_revision": laggard.active_revision,
                    "oldest_running": laggard.oldest_running,
                    "reason": laggard.reason,
                }
                for laggard in self.laggards
            ],
        }


def standing(report: ReplicaReport, now: datetime) -> Standing:
    """Whether a replica lives, is silent (and may serve all the same), or counts no more."""
    if report.stopped_at is not None:
        return "gone"
    silent = (now - (report.heartbeat_at or report.started_at)).total_seconds()
    if silent <= SILENT_SECONDS:
        return "live"
    lease = _DEAD_SECONDS if report.lease_seconds is None else report.lease_seconds
    return "silent" if silent <= lease else "gone"


def laggards(reports: Sequence[ReplicaReport], revision: int, now: datetime) -> tuple[Laggard, ...]:
    """The replicas that may still answer with an image of a revision below `revision`."""
    found = []
    for report in reports:
        stands = standing(report, now)
        reason = None if stands == "gone" else _reason(report, revision)
        if reason is not None:
            found.append(
                Laggard(
                    report.id,
                    report.host,
                    stands,
                    report.active_revision,
                    report.oldest_running,
                    reason,
                )
            )
    return tuple(found)


def wait(
    look: Callable[[], tuple[Sequence[ReplicaReport], datetime]],
    revision: int,
    seconds: float,
    given_up: Callable[[], bool],
) -> Fence:
    """Look until no replica lags, for so many seconds, or until given up; looks at least once.

    Raises StoreUnavailable when the store is away at the end; until then it may come back.
    """
    started = time.monotonic()
    while True:
        try:
            reports, now = look()
        except StoreUnavailable:
            if time.monotonic() - started >= seconds or given_up():
                raise
            time.sleep(_PAUSE_SECONDS)
            continue
        late = laggards(reports, revision, now)
        took = time.monotonic() - started
        if not late or took >= seconds or given_up():
            counted = sum(standing(report, now) != "gone" for report in reports)
            return Fence(revision, took, counted, late)
        time.sleep(_PAUSE_SECONDS)


def _reason(report: ReplicaReport, revision: int) -> str | None:
    active = report.active_revision
    if active is not None and active < revision:
        if report.last_error is not None:
            return f"runs revision {active}: {report.last_error}"
        return f"runs revision {active}"
    if report.oldest_running is not None and report.oldest_running < revision:
        return f"a request still runs under revision {report.oldest_running}"
    return None  # without an active revision it serves nothing, and begins with the head
