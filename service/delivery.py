"""How a change is to reach the fleet, and what became of it."""

from dataclasses import dataclass
from typing import Any

from edits.evaluation.gate import GateReport
from edits.store import Fence, Revision, Rollout, RolloutPlan
from service.snapshot import BuiltContent

__all__ = ["Delivery", "Published"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a new head reaches the fleet.

    With `fence_seconds` the answer waits until nothing older runs on any replica; without, until
    this replica runs it. Urgent: requests that run under an older revision start over. With a
    `plan` it does not become the head at once: a share of the replicas tries it first.
    """

    fence_seconds: float | None = None
    urgent: bool = False
    plan: RolloutPlan | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """A revision that is the head, or on trial, and how it came about."""

    revision: Revision
    built: BuiltContent
    gate: GateReport | None  # None: nothing was added
    fence: Fence | None  # None: only this replica was waited for
    activation_seconds: float  # from the call of the store to the reference assignment
    rollout: Rollout | None = None  # it is on trial, and not the head yet

    @property
    def late(self) -> bool:
        """Some replica may still answer with something older."""
        return self.rollout is not None or (self.fence is not None and not self.fence.closed)

    @property
    def fence_document(self) -> dict[str, Any] | None:
        """The fence as an answer shows it: who is in the way; the caller may ask again."""
        return None if self.fence is None else self.fence.document()

    @property
    def rollout_document(self) -> dict[str, Any] | None:
        """The rollout as an answer shows it."""
        return None if self.rollout is None else self.rollout.document()
