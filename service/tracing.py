"""Causal traces as jobs: each in a process of its own, its state on disk only.

What a job is follows from its folder and from who holds the slot, so a replica that starts finds
the jobs of the one before it, and a trace that was cut off goes on where it was.
"""

import json
import logging
import shutil
import signal
import subprocess
import threading
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from edits.durable_file import write_durably
from edits.tracing.progress import Progress, read_progress
from edits.tracing.result import FILE_NAME as RESULT_NAME
from service import metrics
from service.errors import NotReady, TraceNotFound, TraceRunning
from service.settings import child_environment
from service.trace_check import TraceRequest
from service.trace_process import Holder, Slot, refusal, start_process, trace_command

__all__ = ["Trace", "TraceJobs", "TraceState"]

TraceState = Literal["running", "finished", "failed", "cancelled", "interrupted", "deleted"]

STOP_SECONDS = 5.0
_RECORD, _PROMPTS, _LOG, _RESULT = "job.json", "prompts.yaml", "stderr.log", "result"
_FROM_OUTSIDE = {signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP}

_log = logging.getLogger("quickfix.tracing")


@dataclass(frozen=True, slots=True)
class Trace:
    """One job as it is now; `interrupted` means that it goes on when it is asked for again."""

    id: str
    state: TraceState
    target: str
    started_at: str
    progress: Progress  # pictures
    error: str | None


class TraceJobs:
    """Starts, lists and ends the traces in a folder. Thread-safe."""

    def __init__(self, folder: Path, *, device: str, dtype: str, threads: int) -> None:
        self._folder = folder
        self._device = device
        self._dtype = dtype
        self._threads = threads
        self._slot = Slot(folder / "running.lock")
        self._lock = threading.RLock()
        self._watching: tuple[str, threading.Thread] | None = None
        self._closed = False

    def start(self, request: TraceRequest) -> tuple[Trace, bool]:
        """The job of this request, and whether it was started now.

        One that runs or is finished is answered as it is; any other goes on where it was. Raises
        TraceRunning if another one runs, NotReady if this replica shuts down.
        """
        with self._lock:
            if self._closed:
                raise NotReady("this replica shuts down")
            running = self._running()
            folder = self._folder / request.id
            if running == request.id or (folder / _RESULT / RESULT_NAME).exists():
                return self.find(request.id), False
            if running is not None:
                raise _busy(running)
            self._start(request, folder)
            return self.find(request.id), True

    def jobs(self) -> list[Trace]:
        """All jobs, the one that was started last first."""
        with self._lock:
            running = self._running()
            records = [(path.parent, _read(path)) for path in self._folder.glob(f"*/{_RECORD}")]
            jobs = [self._trace(path, kept, running) for path, kept in records if kept is not None]
        return sorted(jobs, key=lambda job: (job.started_at, job.id), reverse=True)

    def find(self, trace: str) -> Trace:
        """One job. Raises TraceNotFound."""
        with self._lock:
            folder, record = self._known(trace)
            return self._trace(folder, record, self._running())

    def result(self, trace: str) -> dict[str, Any] | None:
        """The document of a finished job, else None. Raises TraceNotFound."""
        folder, _ = self._known(trace)
        return _read(folder / _RESULT / RESULT_NAME)

    def remove(self, trace: str) -> Trace:
        """Stop a job that runs; delete one that does not, with all it has drawn.

        Raises TraceNotFound.
        """
        with self._lock:
            folder, record = self._known(trace)
            if self._running() != trace:
                return self._delete(folder, record)
            watching = self._watching
            _record(folder, {**record, "outcome": "cancelled"})
        self._slot.stop(trace, STOP_SECONDS)
        if watching is not None and watching[0] == trace:
            watching[1].join(STOP_SECONDS)
        return self.find(trace)

    def stop(self) -> None:
        """Start nothing any more, and stop what this object has started."""
        with self._lock:
            self._closed = True
            watching = self._watching
        if watching is not None:
            self._slot.stop(watching[0], STOP_SECONDS)
            watching[1].join(STOP_SECONDS)

    def _running(self) -> str | None:
        if self._watching is not None:
            return self._watching[0]
        holder = self._slot.holder()  # of another replica, or of one that was killed
        return None if holder is None else holder.trace

    def _start(self, request: TraceRequest, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / _PROMPTS).write_bytes(request.prompts)
        record = {
            "target": request.options.target,
            "started_at": datetime.now(UTC).isoformat(),
            "outcome": None,
            "error": None,
        }
        with self._slot.taken(request.id) as slot:
            if slot is None:  # another replica was faster
                raise _busy(self._running() or "of another replica")
            _record(folder, record)
            process = start_process(
                trace_command(request, folder, self._device, self._dtype),
                log=folder / _LOG,
                slot=slot,
                environment=child_environment(),
                threads=self._threads,
            )
            self._slot.name(slot, Holder(request.id, process.pid))
        _log.info("trace started id=%s target=%s", request.id, request.options.target)
        thread = threading.Thread(
            target=self._watch, args=(folder, process), name="trace", daemon=True
        )
        self._watching = (request.id, thread)
        thread.start()

    def _watch(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        with self._lock:
            try:
                state = self._settle(folder, code)
            finally:
                self._watching = None
        metrics.TRACES.labels(state).inc()
        _log.info("trace ended id=%s state=%s code=%d", folder.name, state, code)

    def _settle(self, folder: Path, code: int) -> TraceState:
        """Write down how a process ended that left no result."""
        record = _read(folder / _RECORD) or {}
        if record.get("outcome") is None and not (folder / _RESULT / RESULT_NAME).exists():
            outcome, error = _ending(code, refusal(folder / _LOG))
            record |= {"outcome": outcome, "error": None if self._closed else error}
            _record(folder, record)
        return self._trace(folder, record, None).state

    def _trace(self, folder: Path, record: dict[str, Any], running: str | None) -> Trace:
        state: TraceState
        error: str | None = record.get("error")
        progress = read_progress(folder / _RESULT)
        document = _read(folder / _RESULT / RESULT_NAME)
        if document is not None:
            progress = Progress(document["pictures"], document["pictures"])
        if running == folder.name:
            state, error = "running", None
        elif document is not None:
            state, error = "finished", None
        elif record.get("outcome") is not None:
            state = record["outcome"]
        else:  # nobody was there when it ended
            error = refusal(folder / _LOG)
            state = "interrupted" if error is None else "failed"
        return Trace(folder.name, state, record["target"], record["started_at"], progress, error)

    def _delete(self, folder: Path, record: dict[str, Any]) -> Trace:
        last = self._trace(folder, record, None)
        doomed = folder.with_name(f".{folder.name}")
        shutil.rmtree(doomed, ignore_errors=True)
        folder.rename(doomed)  # gone at once, however long the rest takes
        shutil.rmtree(doomed, ignore_errors=True)
        return replace(last, state="deleted")

    def _known(self, trace: str) -> tuple[Path, dict[str, Any]]:
        # By listing: a name that was sent never becomes a path.
        names = {path.parent.name: path for path in self._folder.glob(f"[!.]*/{_RECORD}")}
        record = _read(names[trace]) if trace in names else None
        if record is None:
            raise TraceNotFound("no trace has that id", param="id")
        return names[trace].parent, record


def _busy(trace: str) -> TraceRunning:
    return TraceRunning(
        f"trace {trace} runs, and only one does at a time; wait for its end or stop it"
    )


def _ending(code: int, said: str | None) -> tuple[TraceState, str | None]:
    if code >= 0:
        return "failed", said or f"the trace ended with exit code {code}; its log says more"
    name = {int(known): known.name for known in signal.Signals}.get(-code, f"signal {-code}")
    if -code in _FROM_OUTSIDE:
        return "interrupted", f"the trace was ended by {name}"
    return "failed", f"the trace crashed by {name}"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document


def _record(folder: Path, document: dict[str, Any]) -> None:
    write_durably(folder / _RECORD, json.dumps(document).encode() + b"\n")
