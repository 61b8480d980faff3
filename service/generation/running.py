"""A job that the engine has begun: its run, its embeddings, and how far its images are."""

import threading
from collections import deque

from PIL.Image import Image
from torch import Tensor

from service import metrics
from service.generation.drawing import Drawing
from service.generation.job import CancelCause, Job
from service.generation.request import Generated
from service.generation.schedulers import Schedulers
from service.runs import Run

__all__ = ["OpenJobs", "RunningJob", "preview_passes"]


class OpenJobs:
    """Those that have begun and have no answer yet, drawn or decoded. Thread-safe."""

    def __init__(self) -> None:
        self._jobs: set[RunningJob] = set()
        self._lock = threading.Lock()

    def add(self, running: "RunningJob") -> None:
        """It has begun."""
        with self._lock:
            self._jobs.add(running)
            metrics.RUNNING.set(len(self._jobs))

    def discard(self, running: "RunningJob") -> None:
        """It has its answer, or starts over."""
        with self._lock:
            self._jobs.discard(running)
            metrics.RUNNING.set(len(self._jobs))

    def cancel(self, cause: CancelCause) -> None:
        """Ask all of them to stop at their next step."""
        with self._lock:
            running = tuple(self._jobs)
        for each in running:
            each.job.cancel(cause)

    def __len__(self) -> int:
        return len(self._jobs)


class RunningJob:
    """Belongs to the denoising loop; its pictures come back from the decoder's thread.

    Whoever ends it, with an answer or an error, claims it first: only one of them does.
    """

    def __init__(
        self,
        job: Job,
        run: Run,
        embeddings: Tensor,
        *,
        shape: tuple[int, ...],
    ) -> None:
        """A job at its start.

        `embeddings` (branches, positions, features); `shape` of one image's latents, (channels,
        rows, columns).
        """
        self.job = job
        self.run = run
        self.drawings: dict[Drawing, int] = {}  # and the index of its image
        self._embeddings = embeddings
        self._shape = shape
        self._to_draw = deque(range(len(job.request.seeds)))
        self._pictures: dict[int, Image] = {}
        self._lock = threading.Lock()
        self._claimed = False

    @property
    def waits_for_places(self) -> bool:
        """Whether some of its images have not been begun."""
        return bool(self._to_draw)

    @property
    def in_loop(self) -> bool:
        """Whether the loop has still to do with it."""
        return bool(self._to_draw or self.drawings)

    @property
    def rows(self) -> int:
        """Rows of UNet passes that it still needs."""
        passes = len(self._to_draw) * self.job.request.steps
        passes += sum(drawing.steps - drawing.taken for drawing in self.drawings)
        return passes * len(self._embeddings)

    @property
    def claimed(self) -> bool:
        """Whether somebody has ended it."""
        return self._claimed

    def claim(self) -> bool:
        """True for the first who asks."""
        with self._lock:
            first, self._claimed = not self._claimed, True
            return first

    def begin_next(self, schedulers: Schedulers) -> Drawing:
        """The drawing of its next image."""
        index = self._to_draw.popleft()
        request = self.job.request
        drawing = Drawing(
            self._embeddings,
            schedulers.new(request.scheduler, request.steps),
            seed=request.seeds[index],
            guidance_scale=request.guidance_scale,
            shape=self._shape,
            unet=self.run.snapshot.unets.get(request.policy),
        )
        self.drawings[drawing] = index
        return drawing

    def receive(self, index: int, picture: Image) -> bool:
        """Take a picture from the decoder; True when it was the last."""
        self._pictures[index] = picture
        return len(self._pictures) == len(self.job.request.seeds)

    def answer(self) -> Generated:
        """What it was asked for, once all pictures are there."""
        snapshot = self.run.snapshot
        return Generated(
            request=self.job.request,
            images=tuple(self._pictures[index] for index in sorted(self._pictures)),
            revision=snapshot.revision,
            digest=snapshot.digest,
            queue_seconds=self.job.queue_seconds or 0.0,
        )

    def preview_after(self, drawing: Drawing) -> int | None:
        """The number of the preview to show after the next pass of `drawing`; None: none."""
        passes = preview_passes(drawing.steps, self.job.request.previews)
        return passes.index(drawing.taken + 1) if drawing.taken + 1 in passes else None


def preview_passes(steps: int, previews: int) -> tuple[int, ...]:
    """After which of `steps` passes to show a preview: evenly spread, never after the last."""
    spread = (round(steps * number / (previews + 1)) for number in range(1, previews + 1))
    return tuple(sorted({after for after in spread if 0 < after < steps}))
