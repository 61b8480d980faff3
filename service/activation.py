"""Head of the store -> verified, composed, self-tested -> ONE reference assignment.

One thread activates (service/reconcile.py); requests only ever begin a run. Whatever fails, the
last good revision stays, and the reason is kept for the status route, the store and the metrics.
As a canary a replica runs the revision on trial in the place of the head.
A replica that has never activated is not ready: a removed concept must not come back.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from edits.errors import HeadMoved, QuickFixError, StoreUnavailable, TrustError
from edits.manifests import RevisionContent
from edits.store import HEARTBEAT_SECONDS, HeadPointer, ReplicaReport, RevisionStore
from service import metrics
from service.acknowledgement import Acknowledgement
from service.activation_state import ActivationState
from service.errors import ActivationFailed, describe
from service.gauges import show_active
from service.rollout import RolloutDriver
from service.runs import Runs
from service.snapshot import ActiveSnapshot, SnapshotBuilder
from service.trust import SetTrust, SignedSet

__all__ = ["Activator"]

_log = logging.getLogger("quickfix.activation")


class Activator:
    """Keeps one replica on the head.

    `initial` is published when the store is brand-new; None leaves that to someone else (the
    edits directory). With `max_staleness_seconds` no request begins on a replica that has not
    been on the head, or could not tell the fleet, for so long; one that runs then has
    `request_seconds` to end. Its lease, after which a fence counts it no more, is longer.
    With `trust` only signed sets run; one whose signatures expire or lose their keys while it runs
    runs on, and says so: without it what it removes would come back.
    `refresh` and `stop` belong to one thread, everything else may be called from any.
    """

    def __init__(
        self,
        store: RevisionStore,
        builder: SnapshotBuilder,
        *,
        replica: str,
        host: str,
        initial: RevisionContent | None,
        max_staleness_seconds: float | None = None,
        request_seconds: float = 0.0,
        trust: SetTrust | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._builder = builder
        self._initial = initial
        self._max_staleness_seconds = max_staleness_seconds
        self._clock = clock
        self._trust = trust
        self._signed: SignedSet | None = None  # of the active snapshot
        self._reading: str | None = None  # digest of the set that is being activated
        self._state = ActivationState()
        self._identity = ReplicaReport(
            id=replica,
            host=host,
            started_at=clock(),
            lease_seconds=(
                None
                if max_staleness_seconds is None
                else max_staleness_seconds + request_seconds + HEARTBEAT_SECONDS  # its last step
            ),
        )
        self._acknowledgement = Acknowledgement(store)
        self.rollouts = RolloutDriver(store, replica)
        self._changed = threading.Condition()
        self.runs = Runs()
        self.runs.usable = lambda: not self.stale

    @property
    def active(self) -> ActiveSnapshot | None:
        """The snapshot that was activated last."""
        return self._state.active

    @property
    def state(self) -> ActivationState:
        """An immutable view for the status route."""
        return self._state

    @property
    def signed(self) -> SignedSet | None:
        """The signatures of the set that was activated last, as they were verified."""
        return self._signed

    @property
    def stale(self) -> bool:
        """Whether this replica has not been on the head, or heard of, for longer than it may.

        Its lease runs from its last report, so reading alone must not keep it serving.
        """
        on_head_at, told_at = self._state.on_head_at, self._acknowledgement.told_at
        limit = self._max_staleness_seconds
        if limit is None or on_head_at is None or told_at is None:
            return False
        return time.monotonic() - min(on_head_at, told_at) > limit

    def refresh(self) -> None:
        """Bring this replica to the head, once. Keeps the last good revision on any failure."""
        wanted = self._state.wanted
        self._reading = None
        rollout = None
        try:
            pointer = self._head()
            rollout = pointer.rollout
            metrics.STORE_READ_AT.set(self._clock().timestamp())
            wanted = pointer.wanted(self._identity.id)
            if wanted is not None:
                metrics.WANTED_REVISION.set(wanted)
                self._follow(pointer, wanted)
            else:
                self._settle(
                    ActivationState(
                        self._state.active,
                        head_read_at=self._clock(),
                        on_head_at=self._state.on_head_at,
                    )
                )
        except (QuickFixError, OSError, RuntimeError) as error:
            self._failed(error, wanted)
            if isinstance(error, StoreUnavailable):
                self.rollouts.store_was_away()
        self._acknowledgement.keep(self._report())
        if rollout is not None:
            self.rollouts.settle()

    def stop(self) -> None:
        """Tell the fleet that this replica serves no more; nothing of it runs when this is called.

        A store that is away is tried once.
        """
        self._acknowledgement.end(replace(self._report(), stopped_at=self._clock()))

    def wait_for(self, number: int, seconds: float) -> ActiveSnapshot | None:
        """The active snapshot once its revision is at least `number`; None after `seconds`.

        Raises ActivationFailed when this replica cannot activate it; a store that is away may be
        back in time.
        """
        deadline = time.monotonic() + seconds
        with self._changed:
            while True:
                state = self._state
                if state.active is not None and state.active.revision >= number:
                    return state.active
                failed = state.last_error is not None and not state.store_away
                if failed and (state.wanted or 0) >= number:
                    raise ActivationFailed(
                        f"revision {number} is published, but this replica cannot run it: "
                        f"{state.last_error}"
                    )
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)

    def _follow(self, pointer: HeadPointer, number: int) -> None:
        """Activate revision `number`, and switch requests over to it."""
        serving = self.runs.current is not None
        while True:
            read_at = self._clock(), time.monotonic()
            active = self._state.active
            if active is None or active.revision != number:
                active = self._activated(number, on_trial=number != pointer.number)
            elif self._state.canary and number == pointer.number and self._signed is not None:
                self._remember(self._signed)  # it was on trial until now
            if serving:
                break
            # Nobody waits for a replica that does not serve. Before it begins it says so and then
            # reads the head once more: a fence that has not seen it has moved the head by now.
            self._acknowledgement.send(
                replace(
                    self._report(),
                    active_revision=number,
                    active_digest=active.digest,
                    wanted_revision=number,
                )
            )
            again = self._store.pointer()
            wanted = again.wanted(self._identity.id)
            if wanted is None or wanted == number:
                break
            pointer, number = again, wanted
        self.runs.switch(active, pointer.restart_below)
        canary = pointer.on_trial(self._identity.id)
        metrics.CANARY.set(canary)
        metrics.HEAD_READ_AT.set(read_at[0].timestamp())
        reached = ActivationState(
            active, number, head_read_at=read_at[0], on_head_at=read_at[1], canary=canary
        )
        try:
            if self._trust is not None and self._signed is not None:
                held = self._signed  # keys are taken out and signatures expire while it runs
                self._trust.verify(held.digest, held.envelope, now=self._clock())
        except TrustError as error:
            self._failed(error, number, reached)
        else:
            self._settle(reached)

    def _head(self) -> HeadPointer:
        pointer = self._store.pointer()
        if pointer.number is not None or self._initial is None:
            return pointer
        with suppress(HeadMoved):  # another replica started at the same moment
            self._store.publish_and_activate(
                self._initial,
                author=self._identity.id,
                reason="first start: no edits",
                expected_head=None,
            )
        return self._store.pointer()

    def _remember(self, signed: SignedSet) -> None:
        """From now on no older set may run here."""
        if self._trust is not None:
            self._trust.remember(signed)

    def _activated(self, number: int, *, on_trial: bool) -> ActiveSnapshot:
        started = time.perf_counter()
        revision = self._store.revision(number)
        self._reading = revision.digest
        signed = None
        if self._trust is not None:
            envelope = self._store.envelope(number)
            signed = self._trust.verify(revision.digest, envelope, now=self._clock())
        built = self._builder.build(revision.content)
        if signed is not None and not on_trial:
            # Before any request runs under it. From one on trial a canary must be able to go back.
            self._remember(signed)
        self._signed = signed
        seconds = time.perf_counter() - started
        metrics.ACTIVATION_SECONDS.observe(seconds)
        metrics.ACTIVATIONS.labels("ok").inc()
        show_active(
            number,
            revision.digest,
            edits=len(revision.content.edits),
            policies=len(revision.content.policies),
            published_at=revision.created_at.timestamp(),
        )
        _log.info("activated revision=%d digest=%s seconds=%.3f", number, revision.digest, seconds)
        return ActiveSnapshot(number, built, self._clock(), seconds)

    def _failed(
        self, error: Exception, wanted: int | None, reached: ActivationState | None = None
    ) -> None:
        """Keep why this replica is not, or with `reached` should not be, where it is wanted."""
        problem = describe(error)
        reason = f"{problem.type}: {problem.message}"
        base = self._state if reached is None else reached
        if wanted is not None and (base.active is None or base.active.revision != wanted):
            metrics.ACTIVATIONS.labels("failed").inc()
        if self._state.last_error != reason:  # a failure that repeats at every poll is logged once
            _log.error("activation failed wanted=%s reason=%s", wanted, reason)
        self._settle(
            replace(
                base,
                wanted=wanted,
                last_error=reason,
                last_error_at=self._clock(),
                rejected_digest=self._reading,
                store_away=isinstance(error, StoreUnavailable),
            )
        )

    def _settle(self, state: ActivationState) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()

    def _report(self) -> ReplicaReport:
        return self._state.report(self._identity, self.runs)
