"""The denoising loop: at every step it takes in what waits and lets go of what should stop.

One thread owns it and the UNet; pictures come back on the decoder's thread.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial

from PIL.Image import Image

from edits.errors import QuickFixError
from service import metrics
from service.errors import GenerationFailed, NotReady
from service.generation.batch import Batches
from service.generation.decode import Decoder
from service.generation.drawing import Drawing, Group
from service.generation.embed import Embedder
from service.generation.job import Job, Previewed, Stepped
from service.generation.queue import WaitingRoom
from service.generation.running import OpenJobs, RunningJob
from service.generation.schedulers import Schedulers
from service.generation.turns import Turns
from service.runs import Runs
from service.snapshot import require_policy

__all__ = ["DenoisingLoop"]

_log = logging.getLogger("quickfix.engine")

_LOOK_SECONDS = 0.1  # how often a drain that is over its time looks for what is left


class DenoisingLoop:
    """Draws at most `max_batch` images at a time, all of one group with one pass of the UNet.

    A job begins its run when it gets a place, so that what waited during an edit is drawn under
    the edit; one that an urgent activation overtakes starts over from its seeds.
    """

    def __init__(
        self,
        runs: Runs,
        room: WaitingRoom,
        *,
        embedder: Embedder,
        schedulers: Schedulers,
        batches: Batches,
        decoder: Decoder,
        latent_shape: Callable[[int, int], tuple[int, ...]],
        max_batch: int,
    ) -> None:
        """`latent_shape` gives (channels, rows, columns) of the latents of a width and height."""
        self._runs = runs
        self._room = room
        self._embedder = embedder
        self._schedulers = schedulers
        self._batches = batches
        self._decoder = decoder
        self._latent_shape = latent_shape
        self._max_batch = max_batch
        self._turns = Turns()
        self._drawn: list[RunningJob] = []  # the loop has still to do with these
        self._open = OpenJobs()
        self._thread = threading.Thread(target=self._serve, name="denoising", daemon=True)

    def start(self) -> None:
        """Start the denoising and the decoding thread."""
        self._decoder.start()
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether both threads run, on a device that works."""
        return self._thread.is_alive() and self._decoder.alive and self._batches.alive

    @property
    def running(self) -> int:
        """Jobs that are being drawn or decoded."""
        return len(self._open)

    def finish(self, seconds: float) -> None:
        """End once the closed room is empty and what runs is done, or stopped after `seconds`."""
        if self._thread.ident is None:
            return
        until = time.monotonic() + seconds
        self._thread.join(timeout=seconds)
        if not self._thread.is_alive():  # it gives the decoder nothing any more
            self._decoder.close(max(0.0, until - time.monotonic()))
        self._open.cancel("drain")
        while self._thread.is_alive():  # a job whose prompt is being encoded is not open yet
            self._thread.join(timeout=_LOOK_SECONDS)
            self._open.cancel("drain")
        self._decoder.close()
        self._refuse_waiting()  # what the decoder's last pictures were to start over

    def _serve(self) -> None:
        try:
            while self._take_in():
                self._let_go()
                self._step()
        finally:
            # Nothing is left after a drain. After a bug nobody would come for what is.
            self._refuse_waiting()
            for running in tuple(self._drawn):
                self._end(running, GenerationFailed("the denoising loop has ended"))

    def _refuse_waiting(self) -> None:
        for job in self._room.close():
            job.settle(NotReady("this replica shuts down"))

    def _take_in(self) -> bool:
        """Give free places away, first come first served; wait for a job where there is nothing.

        While the decoder is full no place is free: else images would wait there without a bound.
        False when there is nothing left to do, ever.
        """
        while True:
            drawings = sum(len(running.drawings) for running in self._drawn)
            if not drawings:
                self._decoder.wait_while_full()
            if not (self._drawn or self._room):
                # What was learnt of groups, and the edited UNets that they hold, must not stay.
                self._batches.forget(set())
                self._turns = Turns()
            free = 0 if self._decoder.full else self._max_batch - drawings
            unfinished = next((job for job in self._drawn if job.waits_for_places), None)
            if free and unfinished is not None:
                self._begin_image(unfinished)
                continue
            job = self._room.take(free, wait=not self._drawn)
            if job is None:
                return bool(self._drawn)
            self._begin(job)

    def _begin(self, job: Job) -> None:
        if not job.accept():
            return
        try:
            running = self._started(job)
        except Exception as error:  # noqa: BLE001 - this request's: the others go on
            job.settle(error)
            return
        self._drawn.append(running)
        self._open.add(running)

    def _started(self, job: Job) -> RunningJob:
        job.check()
        run = self._runs.begin()
        if run is None:
            raise NotReady("no revision is active on this replica")
        request, snapshot = job.request, run.snapshot
        try:
            require_policy(snapshot, request.policy)
            job.begin(run)
            return RunningJob(
                job,
                run,
                self._embedder.embeddings(snapshot, request),
                shape=self._latent_shape(request.width, request.height),
            )
        except BaseException as error:
            if isinstance(error, RuntimeError):  # the edited encoder's own: a canary must tell
                run.outcome = "failed"
            run.end()
            raise

    def _begin_image(self, running: RunningJob) -> None:
        try:
            running.begin_next(self._schedulers)
        except Exception as error:  # noqa: BLE001 - this request's: the others go on
            self._end(running, error)

    def _let_go(self) -> None:
        """Stop at this step what nobody waits for, and what must start over."""
        for running in tuple(self._drawn):
            if running.claimed:  # on the decoder's thread
                self._leave_loop(running)
            else:
                self._goes_on(running)

    def _goes_on(self, running: RunningJob) -> bool:
        """False once it has an answer or a place to start over, which it may be given here."""
        if running.claimed:
            return False
        try:
            running.job.check()
        except QuickFixError as error:
            self._end(running, error)
            return False
        if running.run.must_start_over:
            self._start_over(running)
            return False
        return True

    def _step(self) -> None:
        groups: defaultdict[Group, dict[Drawing, RunningJob]] = defaultdict(dict)
        for running in self._drawn:
            for drawing in running.drawings:
                groups[drawing.group][drawing] = running
        self._batches.forget(set(groups))
        if not groups:
            return
        group = self._turns.next(groups)
        drawings = groups[group]
        numbers: dict[Drawing, int] = {}
        for drawing, running in drawings.items():
            number = running.preview_after(drawing)
            drawing.keep_predicted = number is not None
            if number is not None:
                numbers[drawing] = number
        started = time.perf_counter()
        failed = self._batches.step(tuple(drawings))
        seconds = time.perf_counter() - started
        self._turns.took(group, seconds)
        self._room.stepped(
            sum(drawing.branches for drawing in drawings),
            seconds,
            left=sum(running.rows for running in self._drawn),
        )
        metrics.STEP_SECONDS.observe(seconds)
        metrics.BATCH_SIZE.observe(len(drawings))
        for drawing, running in drawings.items():
            if drawing in failed:
                self._end(running, failed[drawing])
            elif not running.claimed:
                self._report(running, drawing, numbers.get(drawing))

    def _report(self, running: RunningJob, drawing: Drawing, preview: int | None) -> None:
        """Tell of a step, show what is to be shown, and hand clean latents to the decoder."""
        index = running.drawings[drawing]
        job = running.job
        wanted = partial(self._goes_on, running)
        if job.listens:
            job.tell(Stepped(index, drawing.taken, drawing.steps))
        if preview is not None and drawing.predicted is not None:
            taken, steps = drawing.taken, drawing.steps

            def show(picture: Image | Exception) -> None:
                if isinstance(picture, Exception):
                    _log.warning("preview failed error=%s", type(picture).__name__)
                elif not running.claimed:
                    job.tell(Previewed(running.run, index, preview, picture, taken, steps))

            self._decoder.preview(drawing.predicted, show, wanted=wanted)
        if drawing.done:
            del running.drawings[drawing]
            if not running.in_loop:
                self._drawn.remove(running)
            if not self._decoder.full:
                # Before the client hears of it: its next request must find the place that it left.
                self._room.freed(1)
            decoded = partial(self._decoded, running, index)
            self._decoder.submit(drawing.latents, decoded, wanted=wanted)

    def _decoded(self, running: RunningJob, index: int, picture: Image | Exception) -> None:
        """On the decoder's thread."""
        if isinstance(picture, Exception):
            self._end(running, picture)
        elif running.receive(index, picture) and self._goes_on(running):
            self._end(running)

    def _start_over(self, running: RunningJob) -> None:
        if self._room.closed:
            self._end(running, NotReady("this replica shuts down"))
        elif self._close(running):
            running.run.end()
            metrics.RESTARTS.inc()
            self._room.enter_again(running.job)

    def _end(self, running: RunningJob, error: Exception | None = None) -> None:
        """Give the job its answer, or the error in its place."""
        if self._close(running):
            running.job.settle(running.answer() if error is None else error)

    def _close(self, running: RunningJob) -> bool:
        """Take a job out; False when it was taken out before."""
        if not running.claim():
            return False
        if threading.current_thread() is self._thread:
            self._leave_loop(running)
        self._open.discard(running)
        return True

    def _leave_loop(self, running: RunningJob) -> None:
        if running in self._drawn:  # not what is with the decoder only
            self._drawn.remove(running)
            self._room.freed(len(running.drawings))
