"""The one thread that changes what this replica runs: directory -> store -> active snapshot."""

import threading
from collections.abc import Callable

from edits.store import HEARTBEAT_SECONDS, HeadWatch, RevisionStore
from service.activation import Activator
from service.desired_state import DesiredState

__all__ = ["Reconciler"]


class Reconciler:
    """Repeats one tick every `poll_seconds`, and at once when woken: by an admin call, by the
    store's own word of a new head, or by the end of the last request of an old revision.

    A failure that is expected is part of the activation state; a bug ends the thread, and then
    `alive` is False and the liveness probe has the process restarted.
    """

    def __init__(
        self,
        activator: Activator,
        directory: DesiredState | None,
        store: RevisionStore,
        *,
        poll_seconds: float,
        after_tick: Callable[[], object] = lambda: None,
    ) -> None:
        self._activator = activator
        self._directory = directory
        if directory is not None:
            # The gate may take long: the head is followed and heartbeats are sent meanwhile.
            directory.meanwhile = activator.refresh
        self._store = store
        self._after_tick = after_tick
        self._watch: HeadWatch | None = None
        # A tick is also the heartbeat, by which others know that this replica lives.
        self._poll_seconds = min(poll_seconds, HEARTBEAT_SECONDS)
        self._wake = threading.Event()
        self._ticking = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)

    def tick(self) -> None:
        """Publish what the directory wants, then run what the store wants.

        One at a time: what the directory held when a tick began must not overwrite a later look.
        """
        with self._ticking:
            if self._directory is not None:
                self._directory.sync()
            self._activator.refresh()
            self._after_tick()

    def start(self) -> None:
        """One tick on the calling thread, so that a good start is ready at once; then the loop."""
        self.tick()
        self._activator.runs.on_drained = self.wake
        self._watch = self._store.watch(self.wake)
        self._thread.start()

    def wake(self) -> None:
        """Tick now instead of at the next poll."""
        self._wake.set()

    def stop(self) -> None:
        """End the loop, wait for it, and tell the fleet."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._watch is not None:
            self._watch.close()
        self._activator.stop()

    @property
    def alive(self) -> bool:
        """Whether the loop runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(self._poll_seconds)
            self._wake.clear()
            if not self._stopped:
                self.tick()
