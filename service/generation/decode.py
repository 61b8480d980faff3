"""Latents to pictures, on a thread of its own: the denoising loop does not wait for it."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from service import metrics
from service.errors import GenerationFailed
from service.generation.backends import Backend
from service.generation.batch import in_halves
from service.own_thread import in_own_thread

__all__ = ["MAX_DECODED", "Decoder"]

MAX_DECODED = 8  # together: a VAE takes far more memory for a picture than a UNet
_LOOK_SECONDS = 1.0  # how often who waits looks whether the thread has ended by a bug


@dataclass(frozen=True, slots=True)
class _Order:
    latents: Tensor  # (1, channels, rows, columns)
    then: Callable[[Image | Exception], None]
    wanted: Callable[[], bool]
    preview: bool


class Decoder:
    """Decodes what it is given in the order it comes, as many of one shape at once as wait.

    Whoever gives it work asks first whether it is full: it holds the latents of what waits.
    Pictures pass the pipeline's own safety checker and image processor.
    """

    def __init__(self, backend: Backend, pipeline: Any, *, max_waiting: int = MAX_DECODED) -> None:
        self._backend = backend
        self._pipeline = pipeline
        self._max_waiting = max_waiting
        self._orders: deque[_Order] = deque()
        self._images = 0  # that were submitted and have no picture yet
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="decoding", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def full(self) -> bool:
        """Whether as many images wait to be decoded as may; a thread that ended waits for none."""
        return self._images >= self._max_waiting and self.alive

    def wait_while_full(self) -> None:
        """Return once another image may be submitted."""
        with self._changed:
            while self.full:
                self._changed.wait(_LOOK_SECONDS)

    def submit(
        self,
        latents: Tensor,
        then: Callable[[Image | Exception], None],
        *,
        wanted: Callable[[], bool],
    ) -> None:
        """Decode latents (1, channels, rows, columns); `then` is called on this thread.

        So is `wanted`, when their turn has come; False, and they are left out without `then`.
        """
        with self._changed:
            self._images += 1
            self._orders.append(_Order(latents, then, wanted, preview=False))
            self._changed.notify_all()

    def preview(
        self,
        latents: Tensor,
        then: Callable[[Image | Exception], None],
        *,
        wanted: Callable[[], bool],
    ) -> None:
        """The same for a picture that may be left out: it is, while a whole batch waits already."""
        with self._changed:
            if len(self._orders) < MAX_DECODED:
                self._orders.append(_Order(latents, then, wanted, preview=True))
                self._changed.notify_all()

    def close(self, seconds: float | None = None) -> None:
        """Finish what was submitted and end the thread; wait for that, at most so long."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)

    @torch.inference_mode()
    def decode(self, latents: Sequence[Tensor]) -> list[Image]:
        """The pictures of latents of one shape; black where the checker says so.

        Raises GenerationFailed when the latents are not finite.
        """
        together = torch.cat(list(latents))
        if not torch.isfinite(together).all():
            raise GenerationFailed("the denoising loop gave non-finite numbers")
        pixels = self._backend.decode(together)
        pipeline = self._pipeline
        pixels, flagged = pipeline.run_safety_checker(pixels, together.device, together.dtype)
        keep = [True] * len(pixels) if flagged is None else [not flag for flag in flagged]
        metrics.SAFETY_CHECKED.inc(0 if flagged is None else len(flagged))
        metrics.SAFETY_FLAGGED.inc(keep.count(False))
        pictures: list[Image] = pipeline.image_processor.postprocess(
            pixels, output_type="pil", do_denormalize=keep
        )
        return pictures

    def _serve(self) -> None:
        while self._answer(self._take()):
            pass

    def _answer(self, taken: Sequence[_Order]) -> bool:
        """Decode them and tell; False when there are none. What they hold is let go on return."""
        orders = [order for order in taken if order.wanted()]
        results: list[Image | Exception] = []
        if orders:
            with metrics.DECODE_SECONDS.time():
                results = in_own_thread(partial(self._pictures, orders))
        with self._changed:  # before clients hear of it: they may send their next request
            self._images -= sum(not order.preview for order in taken)
            self._changed.notify_all()
        for order, result in zip(orders, results, strict=True):
            order.then(result)
        return bool(taken)

    def _pictures(self, orders: Sequence[_Order]) -> list[Image | Exception]:
        return in_halves(
            orders,
            lambda part: self.decode([order.latents for order in part]),
            lambda _part, _error: metrics.BATCH_SPLITS.inc(),
        )

    def _take(self) -> list[_Order]:
        with self._changed:
            while not self._orders and not self._closed:
                self._changed.wait()
            taken: list[_Order] = []
            while (
                self._orders
                and len(taken) < MAX_DECODED
                and (not taken or self._orders[0].latents.shape == taken[0].latents.shape)
            ):
                taken.append(self._orders.popleft())
            return taken
