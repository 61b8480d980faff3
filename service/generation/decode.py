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

__all__ = ["Decoder"]

_MAX_BATCH = 8  # a VAE takes far more memory for a picture than a UNet


@dataclass(frozen=True, slots=True)
class _Order:
    latents: Tensor  # (1, channels, rows, columns)
    then: Callable[[Image | Exception], None]


class Decoder:
    """Decodes what it is given in the order it comes, as many of one shape at once as wait.

    Pictures pass the pipeline's own safety checker and image processor.
    """

    def __init__(self, backend: Backend, pipeline: Any) -> None:
        self._backend = backend
        self._pipeline = pipeline
        self._orders: deque[_Order] = deque()
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

    def submit(self, latents: Tensor, then: Callable[[Image | Exception], None]) -> None:
        """Decode latents (1, channels, rows, columns); `then` is called on this thread."""
        with self._changed:
            self._orders.append(_Order(latents, then))
            self._changed.notify()

    def close(self) -> None:
        """Finish what was submitted and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join()

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
        while orders := self._take():
            with metrics.DECODE_SECONDS.time():
                results = in_own_thread(partial(self._pictures, orders))
            for order, result in zip(orders, results, strict=True):
                order.then(result)

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
                and len(taken) < _MAX_BATCH
                and (not taken or self._orders[0].latents.shape == taken[0].latents.shape)
            ):
                taken.append(self._orders.popleft())
            return taken
