"""How a change is to reach the fleet, how it does, and what became of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edits.errors import StoreUnavailable
from edits.evaluation.gate import GateReport
from edits.store import ExpectedHead, Fence, Revision, RevisionStore, Rollout, RolloutPlan, SignedBy
from service.activation import Activator
from service.errors import ActivationFailed
from service.reconcile import Reconciler
from service.snapshot import BuiltContent

__all__ = ["Deliverer", "Delivery", "Published"]

_OWN_SECONDS = 10.0  # how long this replica is waited for where nobody asked for a fence


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


class Deliverer:
    """Moves the head, or puts a revision on trial beside it, and waits as asked. Thread-safe.

    Once `given_up` is true no fence is waited for any longer.
    """

    def __init__(
        self,
        store: RevisionStore,
        activator: Activator,
        reconciler: Reconciler,
        *,
        given_up: Callable[[], bool],
    ) -> None:
        self._store = store
        self._activator = activator
        self._reconciler = reconciler
        self._given_up = given_up

    def publish(
        self,
        built: BuiltContent,
        gate: GateReport | None,
        delivery: Delivery,
        *,
        author: str,
        reason: str,
        base: int | None,
        signed: SignedBy | None = None,
    ) -> Published:
        """Publish what was built on the head `base`. Raises StoreError, ActivationFailed."""
        started = time.perf_counter()
        if delivery.plan is None or base is None:  # nothing runs yet: there is nobody to spare
            revision = self._store.publish_and_activate(
                built.content,
                author=author,
                reason=reason,
                expected_head=base,
                urgent=delivery.urgent,
                signed=signed,
            )
            return self._follow(revision, built, gate, started, delivery)
        revision = self._store.publish(
            built.content, author=author, reason=reason, expected_head=base, signed=signed
        )
        rollout = self._store.rollouts.begin(
            revision.number, delivery.plan, author=author, base=base
        )
        self._reconciler.wake()
        return Published(revision, built, gate, None, 0.0, rollout)

    def roll_back(
        self,
        to: int,
        built: BuiltContent,
        delivery: Delivery,
        *,
        author: str,
        reason: str,
        expected_head: ExpectedHead,
    ) -> Published:
        """Publish the content of `to`, which is what was built, anew. Raises as `publish`."""
        started = time.perf_counter()
        revision = self._store.rollback(
            to,
            author=author,
            reason=reason,
            expected_head=expected_head,
            urgent=delivery.urgent,
        )
        return self._follow(revision, built, None, started, delivery)

    def promote(self, *, reason: str, seconds: float | None) -> tuple[Rollout, Fence | None]:
        """Make the revision on trial the head; with `seconds` wait so long for the fence."""
        rollout = self._store.rollouts.promote(reason)
        self._reconciler.wake()
        fence = None if seconds is None else self._fence(rollout.revision, seconds)
        return rollout, fence

    def halt(self, *, reason: str) -> Rollout:
        """Take the revision on trial back."""
        rollout = self._store.rollouts.halt(reason)
        self._reconciler.wake()
        return rollout

    def _follow(
        self,
        revision: Revision,
        built: BuiltContent,
        gate: GateReport | None,
        started: float,
        delivery: Delivery,
    ) -> Published:
        self._reconciler.wake()
        limit = delivery.fence_seconds
        here = self._activator.wait_for(revision.number, _OWN_SECONDS if limit is None else limit)
        seconds = time.perf_counter() - started
        fence = None
        if limit is not None or here is None:
            fence = self._fence(revision.number, max(0.0, (limit or 0.0) - seconds))
        return Published(revision, built, gate, fence, seconds)

    def _fence(self, number: int, seconds: float) -> Fence:
        try:
            return self._store.fence(number, seconds, given_up=self._given_up)
        except StoreUnavailable as error:
            raise ActivationFailed(
                f"revision {number} is published and the head, but the store cannot be reached "
                "to ask whether anything older still runs; see /admin/status"
            ) from error
