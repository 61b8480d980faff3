"""SIGTERM drains before it ends the server: so long it answers, with 503 what is new.

A server that is told to end waits for its connections first and tells the app last, so requests
that wait would be drawn as if nothing was, and no bound of ours would hold.
"""

import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue

__all__ = ["drain_on_sigterm"]


def drain_on_sigterm(drain: Callable[[], None]) -> None:
    """From now on SIGTERM runs `drain` on a thread, and then the handler that it had so far.

    Called on the main thread once the server has installed its handler. Where nothing handles the
    signal, or on another thread, nothing changes: there is no server that would go on meanwhile.
    """
    ends_server = signal.getsignal(signal.SIGTERM)
    if not callable(ends_server) or threading.current_thread() is not threading.main_thread():
        return
    asked: SimpleQueue[int] = SimpleQueue()

    def wait() -> None:
        number = asked.get()
        try:
            drain()
        finally:
            ends_server(number, None)

    # A handler may interrupt the main thread anywhere, itself too: only a put that may be entered
    # again is safe there, neither a new thread nor an event is.
    signal.signal(signal.SIGTERM, lambda number, _frame: asked.put(number))
    threading.Thread(target=wait, name="draining", daemon=True).start()
