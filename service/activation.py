"""Head of the store -> verified, composed, self-tested -> ONE reference assignment.

One thread activates (service/reconcile.py); requests only ever read `active`. Whatever fails, the
last good revision stays, and the reason is kept for the status route, the store and the metrics.
A replica that has never activated is not ready: a removed concept must not come back.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from edits.errors import HeadMoved, QuickFixError
from edits.manifests import RevisionContent
from edits.store import ReplicaReport, RevisionStore
from service import metrics
from service.errors import ActivationFailed, describe
from service.snapshot import ActiveSnapshot, SnapshotBuilder

__all__ = ["HEARTBEAT_SECONDS", "ActivationState", "Activator"]

HEARTBEAT_SECONDS = 3.0

_log = logging.getLogger("quickfix.activation")


@dataclass(frozen=True, slots=True)
class ActivationState:
    """What one replica runs, what it should run, and why the two may differ."""

    active: ActiveSnapshot | None = None
    wanted: int | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    head_read_at: datetime | None = None  # last time the store answered


class Activator:
    """Keeps one replica on the head.

    `initial` is published when the store is brand-new; None leaves that to someone else (the
    edits directory). `refresh` belongs to one thread, everything else may be called from any.
    """

    def __init__(
        self,
        store: RevisionStore,
        builder: SnapshotBuilder,
        *,
        replica: str,
        host: str,
        initial: RevisionContent | None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._builder = builder
        self._replica = replica
        self._host = host
        self._initial = initial
        self._clock = clock
        self._started_at = clock()
        self._state = ActivationState()
        self._reported: tuple[ActivationState, float] | None = None
        self._changed = threading.Condition()

    @property
    def active(self) -> ActiveSnapshot | None:
        """The snapshot that new requests run under; read it once per request."""
        return self._state.active

    @property
    def state(self) -> ActivationState:
        """An immutable view for the status route."""
        return self._state

    def refresh(self) -> None:
        """Bring this replica to the head, once. Keeps the last good revision on any failure."""
        wanted = self._state.wanted
        try:
            wanted = self._head_number()
            active = self._state.active
            if wanted is not None:
                metrics.WANTED_REVISION.set(wanted)
                if active is None or active.revision != wanted:
                    active = self._activate(wanted)
        except (QuickFixError, OSError, RuntimeError) as error:
            self._failed(error, wanted)
        else:
            self._settle(ActivationState(active=active, wanted=wanted, head_read_at=self._clock()))
        self._acknowledge()

    def wait_for(self, number: int, seconds: float) -> ActiveSnapshot:
        """The active snapshot once its revision is at least `number`.

        Raises ActivationFailed when this replica could not activate it, or not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                state = self._state
                if state.active is not None and state.active.revision >= number:
                    return state.active
                if state.last_error is not None and (state.wanted or 0) >= number:
                    raise ActivationFailed(
                        f"revision {number} is published, but this replica cannot run it: "
                        f"{state.last_error}"
                    )
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ActivationFailed(
                        f"revision {number} is published, but this replica did not run it "
                        f"within {seconds:g} s"
                    )
                self._changed.wait(left)

    def _head_number(self) -> int | None:
        number = self._store.head_number()
        if number is not None or self._initial is None:
            return number
        try:
            return self._store.publish_and_activate(
                self._initial,
                author=self._replica,
                reason="first start: no edits",
                expected_head=None,
            ).number
        except HeadMoved:  # another replica started at the same moment
            return self._store.head_number()

    def _activate(self, number: int) -> ActiveSnapshot:
        started = time.perf_counter()
        revision = self._store.revision(number)
        built = self._builder.build(revision.content)
        seconds = time.perf_counter() - started
        metrics.ACTIVATION_SECONDS.observe(seconds)
        metrics.ACTIVATIONS.labels("ok").inc()
        metrics.ACTIVE_REVISION.set(number)
        _log.info("activated revision=%d digest=%s seconds=%.3f", number, revision.digest, seconds)
        return ActiveSnapshot(number, built, self._clock(), seconds)

    def _failed(self, error: Exception, wanted: int | None) -> None:
        problem = describe(error)
        reason = f"{problem.type}: {problem.message}"
        before = self._state
        if wanted is not None and (before.active is None or before.active.revision != wanted):
            metrics.ACTIVATIONS.labels("failed").inc()
        if before.last_error != reason:  # a failure that repeats at every poll is logged once
            _log.error("activation failed wanted=%s reason=%s", wanted, reason)
        self._settle(
            ActivationState(
                active=before.active,
                wanted=wanted,
                last_error=reason,
                last_error_at=self._clock(),
                head_read_at=before.head_read_at,
            )
        )

    def _settle(self, state: ActivationState) -> None:
        with self._changed:
            self._state = state  # the swap: one reference
            self._changed.notify_all()

    def _acknowledge(self) -> None:
        state, now = self._state, time.monotonic()
        if not self._worth_reporting(state, now):
            return
        report = ReplicaReport(
            id=self._replica,
            host=self._host,
            started_at=self._started_at,
            active_revision=None if state.active is None else state.active.revision,
            active_digest=None if state.active is None else state.active.digest,
            wanted_revision=state.wanted,
            last_error=state.last_error,
            last_error_at=state.last_error_at,
        )
        try:
            self._store.acknowledge(report)
        except QuickFixError as error:
            _log.warning("not acknowledged error=%s", type(error).__name__)
        else:
            self._reported = (state, now)

    def _worth_reporting(self, state: ActivationState, now: float) -> bool:
        """At once when something changed, else as a heartbeat: each report is a disk sync."""
        if self._reported is None:
            return True
        told, at = self._reported
        same = (
            told.active is state.active
            and told.wanted == state.wanted
            and told.last_error == state.last_error
        )
        return not same or now - at >= HEARTBEAT_SECONDS
