"""The waiting room in front of the denoising loop: bounded, first come first served."""

import math
import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Literal

from service import metrics
from service.errors import Cancelled, DeadlineExceeded, NotReady, QueueFull
from service.generation.request import Generated, GenerationRequest
from service.runs import Run

__all__ = ["CancelCause", "Job", "WaitingRoom"]

CancelCause = Literal["client_left", "deadline", "drain"]

_SMOOTHING = 0.2  # weight of the newest measurement of the service rate
_MAX_RETRY_AFTER = 60  # seconds


class Job:
    """One admitted request, the run that it was given, and whether it is to stop.

    Whoever waits for the future calls `release` once the answer has left, or nobody wants it.
    """

    def __init__(self, request: GenerationRequest, *, deadline: float) -> None:
        self.request = request
        self.deadline = deadline  # time.monotonic()
        self.admitted_at = time.monotonic()
        self.future: Future[Generated] = Future()
        self._cause: CancelCause | None = None
        self._run: Run | None = None
        self._released = False

    @property
    def work(self) -> int:
        """UNet passes that the request needs."""
        branches = 2 if self.request.guidance_scale > 1 else 1
        return len(self.request.seeds) * self.request.steps * branches

    def cancel(self, cause: CancelCause) -> None:
        """Ask for a stop at the next step; the first cause stays."""
        self._cause = self._cause or cause

    def begin(self, run: Run) -> None:
        """It runs under this from now on; a run that it had before has been ended."""
        self._run = run

    def release(self) -> None:
        """Nobody will send what it drew, or it has been sent: its revision need not be kept."""
        self._released = True
        if self.future.done():
            self._end_run()

    def finished(self) -> None:
        """The loop is done with it, and its future too."""
        if self._released:
            self._end_run()

    def _end_run(self) -> None:
        if self._run is not None:
            self._run.end()

    def check(self) -> None:
        """Raise Cancelled or DeadlineExceeded when the job should not go on."""
        if self._cause is None and time.monotonic() > self.deadline:
            self._cause = "deadline"
        if self._cause == "deadline":
            raise DeadlineExceeded("the request's deadline has passed")
        if self._cause == "drain":
            raise NotReady("this replica shuts down")
        if self._cause == "client_left":
            raise Cancelled("the client left")


class WaitingRoom:
    """Holds at most `capacity` waiting jobs, and one more for a free loop. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._loop_free = False  # until a loop asks for work
        self._seconds_per_pass = 0.0

    def enter(self, job: Job) -> None:
        """Admit a job. Raises QueueFull, or NotReady once the room is closed."""
        with self._changed:
            if self._closed:
                raise NotReady("this replica shuts down")
            if len(self._jobs) >= self._capacity + self._loop_free:
                raise QueueFull(
                    f"{self._capacity} requests wait already", retry_after=self._retry_after()
                )
            self._jobs.append(job)
            self._changed.notify()
            metrics.QUEUE_DEPTH.set(len(self._jobs))

    def take(self) -> Job | None:
        """The next job; waits for one. None once the room is closed and empty."""
        with self._changed:
            self._loop_free = True
            while not self._jobs and not self._closed:
                self._changed.wait()
            job = self._jobs.popleft() if self._jobs else None
            self._loop_free = False
            metrics.QUEUE_DEPTH.set(len(self._jobs))
            return job

    def loop_is_free(self) -> None:
        """The loop has ended its job and comes for the next: that one does not wait any more."""
        with self._changed:
            self._loop_free = True

    def leave(self, job: Job) -> bool:
        """Give a waiting job's place free; False when it does not wait any more."""
        with self._changed:
            try:
                self._jobs.remove(job)
            except ValueError:
                return False
            metrics.QUEUE_DEPTH.set(len(self._jobs))
            return True

    def close(self) -> tuple[Job, ...]:
        """Admit no more; the jobs that still waited are taken out and returned."""
        with self._changed:
            self._closed = True
            waiting = tuple(self._jobs)
            self._jobs.clear()
            self._changed.notify_all()
            metrics.QUEUE_DEPTH.set(0)
            return waiting

    def served(self, job: Job, seconds: float) -> None:
        """Take the measured time of a finished job into the service rate."""
        measured = seconds / job.work
        with self._changed:
            before = self._seconds_per_pass or measured
            self._seconds_per_pass = before + _SMOOTHING * (measured - before)

    def _retry_after(self) -> int:
        """Seconds until half of what waits now has been served, by the measured rate."""
        waiting = sum(job.work for job in self._jobs) * self._seconds_per_pass
        return min(_MAX_RETRY_AFTER, max(1, math.ceil(waiting / 2)))

    def __len__(self) -> int:
        return len(self._jobs)
