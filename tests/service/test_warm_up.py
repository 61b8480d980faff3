"""Every batch size once before the first request, the largest first, within a time."""

import threading
import time

import torch

from service.generation.warm_up import warm_up


class Backend:
    """Records what it is asked for; each row or image takes `seconds`."""

    def __init__(self, *, seconds=0.0, most=10**9):
        self.passes, self.decodings = [], []
        self.shapes, self.threads = set(), set()
        self._seconds, self._most = seconds, most

    def predict(self, latents, timesteps, embeddings, *, unet=None):
        self.passes.append(len(latents))
        self.shapes.add((latents.shape[1:], timesteps.shape[1:], embeddings.shape[1:]))
        self._work(len(latents))
        return latents

    def decode(self, latents):
        self.decodings.append(len(latents))
        self.threads.add(threading.current_thread())
        self._work(len(latents))
        return latents

    def _work(self, count):
        time.sleep(self._seconds * count)
        if count > self._most:
            raise RuntimeError("out of memory")


def warm(backend, *, seconds=60.0, rows=6, images=3):
    warm_up(
        backend,
        latents=(4, 8, 8),
        embedding=(77, 16),
        dtype=torch.float32,
        device=torch.device("cpu"),
        rows=rows,
        images=images,
        seconds=seconds,
    )


def test_every_size_runs_the_largest_first_and_both_largest_together_at_the_end() -> None:
    backend = Backend()
    warm(backend)
    assert backend.passes == [1, 1, 6, 5, 4, 3, 2, 6]
    assert backend.decodings == [1, 1, 3, 2, 3]
    assert backend.shapes == {((4, 8, 8), (), (77, 16))}


def test_decodings_run_in_threads_that_have_ended() -> None:
    backend = Backend()
    warm(backend)
    assert not any(thread.is_alive() for thread in backend.threads)


def test_sizes_that_the_time_is_too_short_for_are_left_out() -> None:
    backend = Backend(seconds=0.05)  # passes have 0.25 s: two of one row, then one of three at most
    warm(backend, seconds=0.5, rows=32, images=1)
    assert backend.passes[:2] == [1, 1]
    assert 1 < max(backend.passes) <= 3


def test_a_size_that_does_not_fit_into_memory_is_told_and_the_smaller_ones_run(caplog) -> None:
    backend = Backend(most=4)
    warm(backend)
    assert backend.passes == [1, 1, 6, 5, 4, 3, 2, 4]
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "warm-up failed at a pass of 6 error=out of memory",
        "warm-up failed at a pass of 5 error=out of memory",
    ]


def test_a_device_that_runs_nothing_does_not_keep_the_service_from_starting(caplog) -> None:
    backend = Backend(most=0)
    warm(backend)
    assert (backend.passes, backend.decodings) == ([1, 1, 6, 5, 4, 3, 2], [1, 1, 3, 2])
    assert sum(record.levelname == "WARNING" for record in caplog.records) == 11
