"""BentoML's parent process ends when its worker dies, so that its supervisor starts both again.

BentoML looks for dead workers every ten seconds, and its parent holds the socket open until the
next one has loaded: requests wait there that a refused connection would send to another replica.
"""

import atexit
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress

import psutil

__all__ = ["end_with_worker"]

_log = logging.getLogger("quickfix.worker")

_STOPPING = {signal.SIGTERM, signal.SIGINT}  # how BentoML and operators end a worker
_LOOK_SECONDS = 0.5


def end_with_worker() -> None:
    """Watch, in the background, the worker that this process will start, and any after it.

    When one dies that nobody has asked to end, this process ends as on SIGTERM, with exit code 1.
    Only Linux tells how a child ended and leaves it to its owner; elsewhere nothing is watched.
    """
    if sys.platform == "linux":
        threading.Thread(target=_watch, name="worker-watch", daemon=True).start()


def _watch() -> None:
    known: int | None = None
    while True:
        known = _started_after(known)
        how = _death_of(known)
        if how is not None:
            break
    _log.critical("the worker, process %d, %s: ending, to be started again", known, how)
    atexit.register(os._exit, 1)  # BentoML exits with 0
    os.kill(os.getpid(), signal.SIGTERM)


def _started_after(known: int | None) -> int:
    """The worker that is not `known`, once there is one: alone of all children it leads a group."""
    while True:
        for child in psutil.Process().children():
            with suppress(ProcessLookupError):
                if child.pid != known and os.getpgid(child.pid) == child.pid:
                    return child.pid
        time.sleep(_LOOK_SECONDS)


def _death_of(worker: int) -> str | None:
    """How it died; None if it ended as asked. Blocks, and leaves the zombie to BentoML."""
    try:
        ended = os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        ended = None
    if ended is None:  # BentoML was faster, which waits only for what it has asked to end
        return None
    if ended.si_code == os.CLD_EXITED:
        return f"exited with {ended.si_status}" if ended.si_status else None
    how = signal.Signals(ended.si_status)
    return None if how in _STOPPING else f"was ended by {how.name}"
