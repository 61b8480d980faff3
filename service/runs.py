"""Which snapshot new requests run under, and which revisions requests still run under.

Both change under one lock: a request either counts under the old revision before the switch, or it
gets the new one. Without that a fence could close while an old request is just about to start.
"""

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Literal, NamedTuple

from service.snapshot import ActiveSnapshot

__all__ = ["Outcome", "Run", "Runs", "Tally"]

Outcome = Literal["drawn", "failed"]


class Tally(NamedTuple):
    """Requests of one revision that were answered with images, and that the model failed."""

    drawn: int = 0
    failed: int = 0


class Run:
    """One request under one snapshot, from reading it until its answer has left."""

    def __init__(self, snapshot: ActiveSnapshot, runs: "Runs") -> None:
        self.snapshot = snapshot
        self.ended = False  # Runs sets it, under its lock
        self.sending = 0  # previews that leave just now; likewise
        self.outcome: Outcome | None = None  # set before it ends; None: nobody waited for it
        self._runs = runs

    @property
    def must_start_over(self) -> bool:
        """Whether an urgent activation wants nothing of this revision to come out any more."""
        return self.snapshot.revision < self._runs.restart_below

    def send(self) -> bool:
        """Whether a preview of it may still leave; if so, it counts until `sent` at least."""
        return self._runs.send(self)

    def sent(self) -> None:
        """What `send` has let through has left."""
        self._runs.sent(self)

    def end(self) -> None:
        """Count it no more. May be called again, and by two threads at once."""
        self._runs.ended(self)


class Runs:
    """The current snapshot and the requests that run. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: ActiveSnapshot | None = None
        self._counts: defaultdict[int, int] = defaultdict(int)
        self._restart_below = 0
        self._tally = Tally()
        self.usable: Callable[[], bool] = lambda: True  # whether new requests may begin at all
        self.on_drained: Callable[[], None] = lambda: None  # the last of an old revision ended

    @property
    def current(self) -> ActiveSnapshot | None:
        """The snapshot that a new request would get; None: none may begin."""
        return self._current if self.usable() else None

    @property
    def tally(self) -> Tally:
        """How requests under the current snapshot ended, since it became the current one."""
        return self._tally

    @property
    def restart_below(self) -> int:
        """Runs of lower revisions are to start over."""
        return self._restart_below

    def switch(self, snapshot: ActiveSnapshot | None, restart_below: int = 0) -> None:
        """From now on new requests get `snapshot`, and older ones may have to start over."""
        with self._lock:
            if snapshot is not self._current:
                self._tally = Tally()
            self._current = snapshot
            self._restart_below = max(restart_below, self._restart_below)

    def begin(self) -> Run | None:
        """A run under the current snapshot; None when no request may begin."""
        if not self.usable():
            return None
        with self._lock:
            if self._current is None:
                return None
            self._counts[self._current.revision] += 1
            return Run(self._current, self)

    def send(self, run: Run) -> bool:
        """Hold the end of a run up; False when it has ended or must start over."""
        with self._lock:
            if run.ended or run.must_start_over:
                return False
            run.sending += 1
            return True

    def sent(self, run: Run) -> None:
        """Hold the end of a run up no more."""
        with self._lock:
            run.sending -= 1
            drained = run.ended and self._take_off(run)
        if drained:
            self.on_drained()

    def ended(self, run: Run) -> None:
        """Take a run off the count, once."""
        with self._lock:
            if run.ended:
                return
            run.ended = True
            if run.outcome is not None and run.snapshot is self._current:
                drawn, failed = self._tally
                self._tally = Tally(
                    drawn + (run.outcome == "drawn"), failed + (run.outcome == "failed")
                )
            drained = self._take_off(run)
        if drained:
            self.on_drained()

    def _take_off(self, run: Run) -> bool:
        """Count it no more, unless something of it leaves; True for the last of an old revision."""
        if run.sending:
            return False
        revision, current = run.snapshot.revision, self._current
        self._counts[revision] -= 1
        if self._counts[revision]:
            return False
        del self._counts[revision]
        return current is not None and revision < current.revision

    def oldest(self) -> int | None:
        """The lowest revision below the current one that a request runs under."""
        with self._lock:
            current = None if self._current is None else self._current.revision
            older = [number for number in self._counts if current is None or number < current]
            return min(older, default=None)
