"""One thread that owns the UNet and the VAE, and serves one waiting job after the other."""

import threading
import time

from PIL.Image import Image

from service import metrics
from service.errors import (
    Cancelled,
    DeadlineExceeded,
    GenerationFailed,
    NotReady,
    PolicyUnknown,
    QueueFull,
)
from service.generation.decode import Decoder
from service.generation.denoise import Denoiser
from service.generation.encoder import PromptEncoder
from service.generation.queue import CancelCause, Job, WaitingRoom
from service.generation.request import Generated, GenerationRequest
from service.runs import Run, Runs
from service.snapshot import ActiveSnapshot

__all__ = ["Engine"]


class Engine:
    """Admission on any thread, generation on its own.

    Each job begins its run when its turn comes, so that what waited during an edit is drawn under
    the edit; one that an urgent activation overtakes starts over from its seeds.
    """

    def __init__(
        self,
        runs: Runs,
        *,
        encoder: PromptEncoder,
        denoiser: Denoiser,
        decoder: Decoder,
        max_queue: int,
        timeout_seconds: float,
    ) -> None:
        self._runs = runs
        self._encoder = encoder
        self._denoiser = denoiser
        self._decoder = decoder
        self._room = WaitingRoom(max_queue)
        self._timeout_seconds = timeout_seconds
        self._running: Job | None = None
        self._draining = False
        self._thread = threading.Thread(target=self._serve_jobs, name="denoising", daemon=True)

    def start(self) -> None:
        """Start the denoising thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the denoising thread runs."""
        return self._thread.is_alive()

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
        """Jobs that are being drawn."""
        return 0 if self._running is None else 1

    def submit(self, request: GenerationRequest) -> Job:
        """Admit a request; its future gives Generated. Raises QueueFull, NotReady, PolicyUnknown.

        The future raises DeadlineExceeded, Cancelled, GenerationFailed, NotReady or PolicyUnknown.
        Whoever waits for it calls `Job.release` in the end.
        """
        snapshot = self._runs.current
        if snapshot is None or self._draining:
            metrics.REJECTED.labels("not_ready").inc()
            raise NotReady("no revision is active on this replica")
        _require_policy(snapshot, request.policy)
        job = Job(request, deadline=time.monotonic() + self._timeout_seconds)
        try:
            self._room.enter(job)
        except QueueFull:
            metrics.REJECTED.labels("queue_full").inc()
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
            job.future.cancel()

    def drain(self, seconds: float) -> None:
        """Refuse what is new, give up what waits, let the running job finish within `seconds`."""
        self._draining = True
        for job in self._room.close():
            metrics.CANCELLED.labels("drain").inc()
            job.future.set_exception(NotReady("this replica shuts down"))
        if not self._thread.is_alive():
            return
        self._thread.join(timeout=seconds)
        running = self._running
        if running is not None:
            running.cancel("drain")
        self._thread.join()

    def _serve_jobs(self) -> None:
        while (job := self._room.take()) is not None:
            if not job.future.set_running_or_notify_cancel():
                continue
            self._running = job
            metrics.RUNNING.set(1)
            outcome = self._outcome(job)
            self._running = None
            metrics.RUNNING.set(0)
            # Before the client hears of it: its next request must find the place that it left.
            self._room.loop_is_free()
            if isinstance(outcome, Exception):
                job.release()  # there is nothing to send
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)
            job.finished()

    def _outcome(self, job: Job) -> Generated | Exception:
        try:
            return self._draw(job)
        except DeadlineExceeded as error:
            metrics.CANCELLED.labels("deadline").inc()
            return error
        except Cancelled as error:
            metrics.CANCELLED.labels("client_left").inc()
            return error
        except RuntimeError as error:
            # Torch's own failures, out of memory among them: this request's, not the loop's.
            failure = GenerationFailed(f"the model failed: {type(error).__name__}")
            failure.__cause__ = error
            return failure
        except Exception as error:  # noqa: BLE001 - the route that waits raises it again
            return error

    def _draw(self, job: Job) -> Generated:
        job.check()
        started = time.monotonic()
        metrics.QUEUE_WAIT_SECONDS.observe(started - job.admitted_at)
        while True:
            run = self._runs.begin()
            if run is None:
                raise NotReady("no revision is active on this replica")
            job.begin(run)
            try:
                generated = self._draw_under(run, job, queue_seconds=started - job.admitted_at)
            except _Overtaken:
                run.end()
                metrics.RESTARTS.inc()
            else:
                self._room.served(job, time.monotonic() - started)
                return generated

    def _draw_under(self, run: Run, job: Job, *, queue_seconds: float) -> Generated:
        began = time.monotonic()
        request, snapshot = job.request, run.snapshot
        _require_policy(snapshot, request.policy)

        def check() -> None:
            job.check()
            if run.must_start_over:
                raise _Overtaken

        text_encoder = snapshot.encoders[request.policy]
        prompt = self._encoder.encode(text_encoder, request.prompt)
        unconditional = None
        if request.guidance_scale > 1:
            unconditional = self._encoder.encode(text_encoder, request.negative_prompt)
        encode_seconds = time.monotonic() - began
        metrics.ENCODE_SECONDS.observe(encode_seconds)

        images: list[Image] = []
        denoise_seconds = decode_seconds = 0.0
        for seed in request.seeds:
            began = time.monotonic()
            latents = self._denoiser.run(
                prompt,
                unconditional,
                seed=seed,
                steps=request.steps,
                guidance_scale=request.guidance_scale,
                width=request.width,
                height=request.height,
                unet=snapshot.unets.get(request.policy),
                before_step=check,
                after_step=metrics.STEP_SECONDS.observe,
            )
            denoised = time.monotonic()
            images.append(self._decoder.decode(latents))
            decoded = time.monotonic()
            metrics.DECODE_SECONDS.observe(decoded - denoised)
            denoise_seconds += denoised - began
            decode_seconds += decoded - denoised
        check()
        return Generated(
            request=request,
            images=tuple(images),
            revision=snapshot.revision,
            digest=snapshot.digest,
            queue_seconds=queue_seconds,
            encode_seconds=encode_seconds,
            denoise_seconds=denoise_seconds,
            decode_seconds=decode_seconds,
        )


class _Overtaken(Exception):
    """An urgent activation wants nothing of the run's revision any more."""


def _require_policy(snapshot: ActiveSnapshot, policy: str) -> None:
    if policy not in snapshot.encoders:
        known = ", ".join(sorted(snapshot.encoders))
        raise PolicyUnknown(f"no policy {policy!r}; known: {known}", param="policy")
