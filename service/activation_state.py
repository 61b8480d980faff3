"""What one replica runs and should run, as it knows it and as the fleet is told."""

from dataclasses import dataclass, replace
from datetime import datetime

from edits.store import ReplicaReport
from service.runs import Runs
from service.snapshot import ActiveSnapshot

__all__ = ["ActivationState"]


@dataclass(frozen=True, slots=True)
class ActivationState:
    """What one replica runs, what it should run, and why the two may differ."""

    active: ActiveSnapshot | None = None
    wanted: int | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    rejected_digest: str | None = None  # of the set that `last_error` is about
    store_away: bool = False  # `last_error` is the store's, and says nothing of the set
    head_read_at: datetime | None = None  # last time the store answered
    on_head_at: float | None = None  # time.monotonic() when this replica last was on the head
    canary: bool = False  # what is wanted is on trial, and not the head

    def report(self, identity: ReplicaReport, runs: Runs) -> ReplicaReport:
        """`identity` with this state, and with what still runs; a canary also counts its images."""
        tally = runs.tally if self.canary else None
        return replace(
            identity,
            active_revision=None if self.active is None else self.active.revision,
            active_digest=None if self.active is None else self.active.digest,
            wanted_revision=self.wanted,
            last_error=self.last_error,
            last_error_at=self.last_error_at,
            rejected_digest=self.rejected_digest,
            oldest_running=runs.oldest(),
            drawn=None if tally is None else tally.drawn,
            failed=None if tally is None else tally.failed,
        )
