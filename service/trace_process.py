"""The process that runs a trace: never more than one at a time, and out of the replica's way.

It is told apart from all others by a locked file that it holds open as long as it lives, whatever
becomes of the replica that started it: a process id alone may belong to someone else by now.
"""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import edits
from service.trace_check import TraceRequest

__all__ = ["Holder", "Slot", "refusal", "start_process", "trace_command"]

NICENESS = 10
_REPEATED = {"positions": "position", "modules": "module"}  # field -> option of the command
_NOT_OPTIONS = {"target", "resamples"}
_PREFIX = "quickfix: "
_LONGEST_LINE = 10_000
_LONGEST_MESSAGE = 1000
_PATH = re.compile(r"(?<![\w/])(?:~|\.{1,2})?/[^\s'\"]+")
_FIELD = re.compile(r" \[[\w.]+\]$")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds the slot: the trace's id, and its process, 0 while it starts."""

    trace: str
    process: int


class Slot:
    """The one place in which a trace may run, for all processes that share its file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def holder(self) -> Holder | None:
        """Who runs, or None."""
        try:
            file = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            trace, _, process = os.pread(file, 100, 0).decode().partition(" ")
            return Holder(trace, int(process or 0))
        finally:
            os.close(file)
        return None

    @contextmanager
    def taken(self, trace: str) -> Iterator[int | None]:
        """The slot's descriptor for a child to inherit, or None if it is taken.

        After the block only a child that has inherited it keeps the slot.
        """
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if _lock(file):
                self.name(file, Holder(trace, 0))
                yield file
            else:
                yield None
        finally:
            os.close(file)

    def name(self, file: int, holder: Holder) -> None:
        """Write who holds the slot; always the same length, so that no reader sees half of it."""
        os.pwrite(file, f"{holder.trace:16} {holder.process:10}\n".encode(), 0)

    def stop(self, trace: str, seconds: float) -> None:
        """End this trace's process: SIGTERM, and after `seconds` SIGKILL. No effect on others."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + seconds
            told = False
            while (holder := self.holder()) is not None and holder.trace == trace:
                if holder.process and not told:
                    with suppress(ProcessLookupError):
                        os.kill(holder.process, number)
                    told = True
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            else:
                return


def trace_command(request: TraceRequest, folder: Path, device: str, dtype: str) -> list[str]:
    """`quickfix trace` for a request whose prompts and result lie in `folder`."""
    given = {
        "model": request.model,
        "prompts": folder / "prompts.yaml",
        "out": folder / "result",
        "device": device,
        "dtype": dtype,
        "pairs": request.pairs,
    }
    words = [f"--attribute={name}" for name in request.attributes]
    options = request.options.model_dump(mode="json", exclude=_NOT_OPTIONS)
    for name, value in {**given, **options}.items():
        if name in _REPEATED:
            words += [f"--{_REPEATED[name]}={item}" for item in value]
        elif value is not None:
            words.append(f"--{name.replace('_', '-')}={value}")
    return [sys.executable, "-m", "edits.cli", "trace", request.options.target, "--json", *words]


def start_process(
    command: list[str], *, log: Path, slot: int, environment: Mapping[str, str], threads: int
) -> subprocess.Popen[bytes]:
    """Start the command with its standard error in `log`; it inherits the descriptor `slot`.

    On busy cores it yields to the replica, and when memory runs out it is the one to go.
    """
    package = str(Path(edits.__file__).resolve().parents[1])
    path = environment.get("PYTHONPATH")
    variables = {
        **environment,
        "PYTHONPATH": package if not path else f"{package}{os.pathsep}{path}",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",  # a thread that spins while it waits takes the engine's core
        "COLUMNS": str(_LONGEST_LINE),  # `refusal` wants a message on one line
        "FORCE_COLOR": "",
        "TTY_COMPATIBLE": "0",
    }
    with log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env=variables,
            pass_fds=(slot,),
            start_new_session=True,
        )
    # From outside: code between fork and exec may hang in a process with threads.
    with suppress(OSError):
        niceness = max(NICENESS, os.getpriority(os.PRIO_PROCESS, 0))
        os.setpriority(os.PRIO_PROCESS, process.pid, niceness)
    with suppress(OSError):
        Path(f"/proc/{process.pid}/oom_score_adj").write_text("1000", encoding="ascii")
    return process


def refusal(log: Path) -> str | None:
    """What the command said last when it refused to go on, without paths of this machine."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    said = [line for line in lines if line.startswith(_PREFIX)]
    if not said:
        return None
    message = _FIELD.sub("", said[-1].removeprefix(_PREFIX).rstrip())
    return _PATH.sub("(a path)", message)[:_LONGEST_MESSAGE]


def _lock(file: int) -> bool:
    for _ in range(5):  # who only looks whether the slot is free holds it for a moment
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False
