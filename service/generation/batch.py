"""One pass of the UNet for many drawings; one that fails, fails alone."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from service import metrics
from service.generation.backends import Backend
from service.generation.drawing import Drawing, Group

__all__ = ["Batches", "in_halves"]

_log = logging.getLogger("quickfix.batch")

_SHORT_SECONDS = 60.0  # how long a size that did not fit into memory is not tried again
_MAX_LOST = 8  # passes in a row without a single row that worked

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Batches:
    """Steps drawings together. One thread owns it.

    A batch that did not fit into memory is not tried again at that size for a minute.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._fits: dict[Group, tuple[int, float]] = {}  # and until when, time.monotonic()
        self._lost = 0

    @property
    def alive(self) -> bool:
        """Whether the device is of any use: one that is poisoned fails every pass until a restart.

        Memory that is short does not count: whoever asks for large images could end the process.
        """
        return self._lost < _MAX_LOST

    def step(self, drawings: Sequence[Drawing]) -> dict[Drawing, Exception]:
        """One step of every drawing, all of one group. Those that failed, and why."""
        group = drawings[0].group
        fits, until = self._fits.get(group, (len(drawings), 0.0))
        if time.monotonic() >= until:
            fits = len(drawings)
        failed: dict[Drawing, Exception] = {}
        for start in range(0, len(drawings), fits):
            part = drawings[start : start + fits]
            outputs = in_halves(part, self._predict, self._split)
            for drawing, output in zip(part, outputs, strict=True):
                if isinstance(output, Exception):
                    failed[drawing] = output
                elif error := _advance(drawing, output):
                    failed[drawing] = error
        if len(failed) < len(drawings):
            self._lost = 0
        elif all(map(_of_the_device, failed.values())):
            self._lost += 1
        return failed

    def forget(self, groups: set[Group]) -> None:
        """Keep what is known about these groups only: memory may be free again by their return."""
        self._fits = {group: fits for group, fits in self._fits.items() if group in groups}

    @torch.inference_mode()
    def _predict(self, drawings: Sequence[Drawing]) -> Sequence[Tensor]:
        device = drawings[0].latents.device
        outputs = self._backend.predict(
            torch.cat([drawing.model_input() for drawing in drawings]),
            torch.cat([drawing.timesteps() for drawing in drawings]).to(device),
            torch.cat([drawing.embeddings for drawing in drawings]),
            unet=drawings[0].group.unet,
        )
        return torch.split(outputs, [drawing.branches for drawing in drawings])

    def _split(self, drawings: Sequence[Drawing], error: Exception) -> None:
        metrics.BATCH_SPLITS.inc()
        _log.warning("batch failed size=%d error=%s", len(drawings), type(error).__name__)
        if isinstance(error, torch.OutOfMemoryError):
            until = time.monotonic() + _SHORT_SECONDS
            self._fits[drawings[0].group] = max(1, len(drawings) // 2), until
            torch.cuda.empty_cache()


def in_halves(
    items: Sequence[_Item],
    run: Callable[[Sequence[_Item]], Sequence[_Result]],
    on_split: Callable[[Sequence[_Item], Exception], None],
) -> list[_Result | Exception]:
    """`run(items)`; where it raises, the same for each half, down to the item that raises alone.

    `run` must change nothing when it raises. `on_split` hears of every batch that is split.
    """
    try:
        return list(run(items))
    except Exception as error:  # noqa: BLE001 - torch's and ONNX Runtime's own have no common class
        if len(items) == 1:
            return [error]
        failure = error.with_traceback(None)  # its frames hold the tensors of the failed batch
    on_split(items, failure)
    middle = len(items) // 2
    return [
        *in_halves(items[:middle], run, on_split),
        *in_halves(items[middle:], run, on_split),
    ]


def _of_the_device(error: Exception) -> bool:
    return isinstance(error, RuntimeError) and not isinstance(error, torch.OutOfMemoryError)


@torch.inference_mode()
def _advance(drawing: Drawing, output: Tensor) -> Exception | None:
    try:
        drawing.advance(output)
    except Exception as error:  # noqa: BLE001 - this drawing's, not the batch's
        return error
    return None
