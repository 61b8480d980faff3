"""The waiting room in front of the denoising loop: bounded, first come first served."""

import math
import threading
from collections import deque

from service import metrics
from service.errors import NotReady, QueueFull
from service.generation.job import Job

__all__ = ["WaitingRoom"]

_SMOOTHING = 0.05  # weight of the newest step in the service rate
_MAX_RETRY_AFTER = 60  # seconds


class WaitingRoom:
    """At most `capacity` waiting jobs, and those that the loop has places for. Thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._free = 0  # places of the loop that nobody was given yet
        self._seconds_per_row = 0.0
        self._rows_drawn = 0  # that the loop's own jobs still need

    @property
    def closed(self) -> bool:
        """Whether no more are admitted."""
        return self._closed

    def enter(self, job: Job) -> None:
        """Admit a job. Raises QueueFull, or NotReady once the room is closed."""
        with self._changed:
            if self._closed:
                raise NotReady("this replica shuts down")
            if len(self._jobs) >= self._capacity + self._free:
                raise QueueFull(
                    f"{self._capacity} requests wait already", retry_after=self._retry_after()
                )
            self._jobs.append(job)
            self._changed.notify()
            metrics.QUEUE_DEPTH.set(len(self._jobs))

    def enter_again(self, job: Job) -> None:
        """Put a job that starts over before all that were admitted after it."""
        with self._changed:
            later = (n for n, each in enumerate(self._jobs) if each.admitted_at > job.admitted_at)
            self._jobs.insert(next(later, len(self._jobs)), job)
            self._changed.notify()
            metrics.QUEUE_DEPTH.set(len(self._jobs))

    def take(self, free: int, *, wait: bool) -> Job | None:
        """The next job for a loop with `free` places; with `wait`, until there is one.

        None when there is no place or no job; with `wait` only once the room is closed and empty.
        """
        with self._changed:
            self._free = free
            if free == 0:
                return None
            while wait and not self._jobs and not self._closed:
                self._changed.wait()
            if not self._jobs:
                return None
            job = self._jobs.popleft()
            self._free = free - 1
            metrics.QUEUE_DEPTH.set(len(self._jobs))
            return job

    def freed(self, places: int) -> None:
        """The loop has places again, and comes for the next jobs: those do not wait any more."""
        with self._changed:
            self._free += places

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

    def stepped(self, rows: int, seconds: float, *, left: int) -> None:
        """Take a measured pass of the UNet into the service rate; what runs needs `left` rows."""
        measured = seconds / rows
        with self._changed:
            self._rows_drawn = left
            before = self._seconds_per_row or measured
            self._seconds_per_row = before + _SMOOTHING * (measured - before)

    def _retry_after(self) -> int:
        """Seconds until what runs and half of what waits has been served, by the measured rate."""
        rows = self._rows_drawn + sum(job.work for job in self._jobs) / 2
        return min(_MAX_RETRY_AFTER, max(1, math.ceil(rows * self._seconds_per_row)))

    def __len__(self) -> int:
        return len(self._jobs)
