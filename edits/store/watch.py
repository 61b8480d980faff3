"""Being told of a new head: LISTEN on PostgreSQL, a cheap look at the file on SQLite.

A watch only says "look now": it may speak without cause, and whoever is told reads the head
itself. Polling stays the safety net.
"""

import random
import threading
from collections.abc import Callable

from edits.errors import StoreUnavailable
from edits.store.database import Database

__all__ = ["HeadWatch"]

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0


class HeadWatch:
    """A thread that calls `on_change` soon after each change of the store.

    When the database is gone it tries again with growing pauses, and when it has come back it
    calls `on_change`, because what happened in between was not heard.
    """

    def __init__(self, database: Database, on_change: Callable[[], None]) -> None:
        self._database = database
        self._on_change = on_change
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="head-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and wait for it."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._stopped.is_set():
            try:
                with self._database.session() as driver:
                    for _ in self._database.kind.changes(driver, self._stopped):
                        pause = _FIRST_PAUSE_SECONDS
                        self._on_change()
            except StoreUnavailable:
                # Half of it by chance, so that a fleet does not come back all at once.
                self._stopped.wait(pause * random.uniform(0.5, 1))  # noqa: S311  not a secret
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
