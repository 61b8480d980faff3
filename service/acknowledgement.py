"""What this replica tells the fleet: at once when it changes, else as a heartbeat."""

import logging
import time
from dataclasses import replace

from edits.errors import QuickFixError
from edits.store import HEARTBEAT_SECONDS, ReplicaReport, RevisionStore

__all__ = ["Acknowledgement"]

_log = logging.getLogger("quickfix.activation")


class Acknowledgement:
    """The last report that the store took. Sending belongs to one thread."""

    def __init__(self, store: RevisionStore) -> None:
        self._store = store
        self._told: tuple[ReplicaReport, float] | None = None

    @property
    def told_at(self) -> float | None:
        """When the last report was sent, of `time.monotonic()`; the lease runs from then."""
        return None if self._told is None else self._told[1]

    def send(self, report: ReplicaReport) -> None:
        """Store a report. Raises StoreError."""
        now = time.monotonic()  # before it is dated: the lease must not end before we know
        self._store.acknowledge(report)
        self._told = (report, now)

    def keep(self, report: ReplicaReport) -> None:
        """Store a report if it says something new or a heartbeat is due: each is a disk sync.

        A store that is away is tried once; the next call tries again.
        """
        if self._told is not None:
            told, at = self._told
            same = replace(report, last_error_at=None) == replace(told, last_error_at=None)
            if same and time.monotonic() - at < HEARTBEAT_SECONDS:
                return
        self._try(report)

    def end(self, report: ReplicaReport) -> None:
        """Store the last report of all; a store that is away is tried once."""
        self._try(report)

    def _try(self, report: ReplicaReport) -> None:
        try:
            self.send(report)
        except QuickFixError as error:
            _log.warning("not acknowledged error=%s", type(error).__name__)
