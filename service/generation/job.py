"""One admitted request on its way through the engine, and what its client is told meanwhile."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Literal

from PIL.Image import Image

from service import metrics
from service.errors import Cancelled, DeadlineExceeded, GenerationFailed, NotReady
from service.generation.request import Generated, GenerationRequest
from service.runs import Outcome, Run

__all__ = ["Began", "CancelCause", "Ended", "Event", "Job", "Previewed", "Stepped"]

_log = logging.getLogger("quickfix.engine")

CancelCause = Literal["client_left", "deadline", "drain"]


@dataclass(frozen=True, slots=True)
class Began:
    """The job is drawn under this revision from now on; what came before is void."""

    revision: int
    digest: str


@dataclass(frozen=True, slots=True)
class Stepped:
    """Image `index` has taken `taken` of its `steps` passes."""

    index: int
    taken: int
    steps: int


@dataclass(frozen=True, slots=True)
class Previewed:
    """What image `index` is going to be, as its latents stood after `taken` passes of a run."""

    run: Run
    index: int
    number: int  # 0 is the first preview of the image
    picture: Image
    taken: int
    steps: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The job's future has its answer; nothing follows."""


Event = Began | Stepped | Previewed | Ended


class Job:
    """One admitted request, the run that it was given, and whether it is to stop.

    Whoever waits for the future calls `release` once the answer has left, or nobody wants it.
    `listener` hears of what happens, on the engine's threads: it must not block.
    """

    def __init__(
        self,
        request: GenerationRequest,
        *,
        deadline: float,
        listener: Callable[[Event], None] | None = None,
    ) -> None:
        self.request = request
        self.deadline = deadline  # time.monotonic()
        self.admitted_at = time.monotonic()
        self.queue_seconds: float | None = None  # None: it has not begun yet
        self.future: Future[Generated] = Future()
        self._listener = listener
        self._cause: CancelCause | None = None
        self._run: Run | None = None
        self._released = False

    @property
    def work(self) -> int:
        """Rows of UNet passes that the request needs."""
        branches = 2 if self.request.guidance_scale > 1 else 1
        return len(self.request.seeds) * self.request.steps * branches

    def accept(self) -> bool:
        """The engine takes it, for the first time or again; False when nobody wants it any more."""
        return self.future.running() or self.future.set_running_or_notify_cancel()

    @property
    def cause(self) -> CancelCause | None:
        """Why it is to stop, if it is."""
        return self._cause

    def cancel(self, cause: CancelCause) -> None:
        """Ask for a stop at the next step; the first cause stays."""
        self._cause = self._cause or cause

    def begin(self, run: Run) -> None:
        """It runs under this from now on; a run that it had before has been ended."""
        if self.queue_seconds is None:  # what starts over has drawn since, not waited
            self.queue_seconds = time.monotonic() - self.admitted_at
            metrics.QUEUE_WAIT_SECONDS.observe(self.queue_seconds)
        self._run = run
        self.tell(Began(run.snapshot.revision, run.snapshot.digest))

    def tell(self, event: Event) -> None:
        """Let the client know."""
        if (listener := self._listener) is not None:  # `release` may come between
            listener(event)

    @property
    def listens(self) -> bool:
        """Whether anybody hears of events."""
        return self._listener is not None

    def release(self) -> None:
        """Nobody will send what it drew, or it has been sent: its revision need not be kept.

        Nobody hears of its events any more, and it holds nothing of who did.
        """
        self._released = True
        self._listener = None
        if self.future.done():
            self._end_run()

    def settle(self, outcome: Generated | Exception) -> None:
        """The engine is done with it: give it its answer, or the error in its place."""
        if isinstance(outcome, Generated):
            self._note("drawn")
            self.future.set_result(outcome)
        else:
            if isinstance(outcome, RuntimeError | GenerationFailed):
                self._note("failed")
            if self._cause is not None:
                metrics.CANCELLED.labels(self._cause).inc()
            self._released = True  # there is nothing to send
            self.future.set_exception(_failure(outcome))
        # Told, not by a callback of the future: it keeps them, and its images in a cycle with them.
        self.tell(Ended())
        if self._released:
            self._end_run()

    def _note(self, outcome: Outcome) -> None:
        if self._run is not None:
            self._run.outcome = outcome

    def _end_run(self) -> None:
        if self._run is not None:
            self._run.end()

    def check(self) -> None:
        """Raise Cancelled, DeadlineExceeded or NotReady when the job should not go on."""
        if self._cause is None and time.monotonic() > self.deadline:
            self._cause = "deadline"
        if self._cause == "deadline":
            raise DeadlineExceeded("the request's deadline has passed")
        if self._cause == "drain":
            raise NotReady("this replica shuts down")
        if self._cause == "client_left":
            raise Cancelled("the client left")


def _failure(error: Exception) -> Exception:
    """What the client is told. The model's own failures, out of memory among them, are one kind."""
    if not isinstance(error, RuntimeError):
        return error
    _log.error("drawing failed error=%s", type(error).__name__)
    failure = GenerationFailed(f"the model failed: {type(error).__name__}")
    failure.__cause__ = error
    return failure
