"""What this replica does for a rollout beside being a canary: end it when there is a reason.

No replica leads. Each looks as often as at the head, and the store lets one of them end it.
"""

import logging
import time

from edits.errors import QuickFixError
from edits.store import SILENT_SECONDS, RevisionStore
from service import metrics

__all__ = ["RolloutDriver"]

_log = logging.getLogger("quickfix.rollout")


class RolloutDriver:
    """Belongs to the thread that activates."""

    def __init__(self, store: RevisionStore, replica: str) -> None:
        self._store = store
        self._replica = replica
        self.reached_since = time.monotonic()

    def store_was_away(self) -> None:
        """Heartbeats that nobody could send say nothing: every replica must have its turn again."""
        self.reached_since = time.monotonic()

    def settle(self) -> None:
        """Promote or halt the rollout if the canaries' reports say so; a store that is away is
        tried once.
        """
        heard = time.monotonic() - self.reached_since > SILENT_SECONDS
        try:
            ended = self._store.rollouts.settle(by=self._replica, heard=heard)
        except QuickFixError as error:
            _log.warning("rollout not looked at error=%s", type(error).__name__)
            return
        if ended is None or ended.outcome is None:
            return
        metrics.ROLLOUTS.labels(ended.outcome).inc()
        level = logging.ERROR if ended.outcome == "halted" else logging.INFO
        _log.log(level, "%s revision=%d reason=%s", ended.outcome, ended.revision, ended.detail)
