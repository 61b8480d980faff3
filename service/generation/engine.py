"""Admission to the denoising loop, and its end: what may be asked for by any thread."""

import time
from collections.abc import Callable

from service import metrics
from service.errors import Cancelled, NotReady, QueueFull
from service.generation.job import CancelCause, Event, Job
from service.generation.loop import DenoisingLoop
from service.generation.queue import WaitingRoom
from service.generation.request import GenerationRequest
from service.runs import Runs
from service.snapshot import require_policy

__all__ = ["Engine"]


class Engine:
    """Step-level batching: a request joins at the next step and leaves when it is done.

    One thread owns the UNet, another the VAE; every call here is for any thread.
    """

    def __init__(
        self, runs: Runs, room: WaitingRoom, loop: DenoisingLoop, *, timeout_seconds: float
    ) -> None:
        self._runs = runs
        self._room = room
        self._loop = loop
        self._timeout_seconds = timeout_seconds
        self._draining = False

    def start(self) -> None:
        """Start the threads."""
        self._loop.start()

    @property
    def alive(self) -> bool:
        """Whether the threads run, on a device that works."""
        return self._loop.alive

    @property
    def draining(self) -> bool:
        """Whether new requests are refused because the replica shuts down."""
        return self._draining

    @property
    def waiting(self) -> int:
        """Jobs that wait."""
        return len(self._room)

    @property
    def running(self) -> int:
        """Jobs that are being drawn or decoded."""
        return self._loop.running

    def submit(
        self, request: GenerationRequest, listener: Callable[[Event], None] | None = None
    ) -> Job:
        """Admit a request; its future gives Generated. Raises QueueFull, NotReady, PolicyUnknown.

        The future raises DeadlineExceeded, Cancelled, GenerationFailed, NotReady or PolicyUnknown.
        Whoever waits for it calls `Job.release` in the end. `listener` hears of its events, on the
        engine's threads.
        """
        snapshot = self._runs.current
        if snapshot is None or self._draining:
            metrics.REJECTED.labels("not_ready").inc()
            raise NotReady(
                "this replica shuts down"
                if self._draining
                else "no revision is active on this replica"
            )
        require_policy(snapshot, request.policy)
        deadline = time.monotonic() + self._timeout_seconds
        job = Job(request, deadline=deadline, listener=listener)
        try:
            self._room.enter(job)
        except QueueFull:
            metrics.REJECTED.labels("queue_full").inc()
            raise
        except NotReady:  # the room was closed since
            metrics.REJECTED.labels("not_ready").inc()
            raise
        return job

    def abandon(self, job: Job, cause: CancelCause) -> None:
        """Nobody waits for this job: free its place, or stop it at its next step.

        No effect on a job that is done.
        """
        if job.future.done():
            return
        job.cancel(cause)
        if self._room.leave(job):
            metrics.CANCELLED.labels(cause).inc()
            if not job.future.cancel():  # it was drawn before, and waited to start over
                job.future.set_exception(Cancelled("nobody waits for it"))

    def drain(self, seconds: float) -> None:
        """Refuse what is new, give up what waits, let running jobs finish within `seconds`."""
        self._draining = True
        for job in self._room.close():
            job.cancel("drain")
            job.settle(NotReady("this replica shuts down"))
        self._loop.finish(seconds)
