"""A decoder slower than the denoising loop: bounded work, none of it dead, no standstill."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor

from service.errors import Cancelled, DeadlineExceeded, NotReady, QueueFull
from service.generation.decode import Decoder
from service.generation.job import Event, Job, Previewed
from service.generation.request import GenerationRequest
from service.settings import Settings

from .replica import Replica

Start = Callable[[Settings], Replica]
SHORT = GenerationRequest("a cat", (1,), 1, 1.0, 32, 32)
PICTURE = Image.new("RGB", (32, 32))


class Gate:
    """Decodes nothing until it is opened, and remembers how many it was given at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._opened = threading.Event()

    def __call__(self, latents: Sequence[Tensor]) -> list[Image.Image]:
        self.sizes.append(len(latents))
        assert self._opened.wait(60)
        return [PICTURE] * len(latents)

    def open(self) -> None:
        self._opened.set()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open()


@pytest.fixture
def gated(settings: Settings, start_replica: Start, gate: Gate) -> Replica:
    """Two images are drawn at a time, so at most four wait to be decoded."""
    replica = start_replica(settings.model_copy(update={"max_batch": 2, "max_queue": 3}))
    replica.runtime.engine._loop._decoder.decode = gate  # type: ignore[method-assign]
    return replica


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def filled(replica: Replica) -> list[Job]:
    """Requests until the next one is refused."""
    engine = replica.runtime.engine
    jobs: list[Job] = []
    with pytest.raises(QueueFull):
        while len(jobs) < 50:
            jobs.append(engine.submit(SHORT))
            wait_until(lambda: engine.waiting <= 1 or engine.running >= 4)
            time.sleep(0.05)
    return jobs


def test_what_waits_to_be_decoded_is_bounded_and_then_requests_are_refused(
    gated: Replica, gate: Gate
) -> None:
    jobs = filled(gated)
    assert 4 + 3 <= len(jobs) <= 4 + 2 + 3  # decoded or waiting for it, drawn, waiting
    assert gated.runtime.engine.running <= 6
    gate.open()
    assert {len(job.future.result(30).images) for job in jobs} == {1}
    assert gated.draw().status_code == 200


def test_a_request_of_more_images_than_the_decoder_holds_is_drawn_to_its_end(
    gated: Replica, gate: Gate
) -> None:
    job = gated.runtime.engine.submit(replace(SHORT, seeds=tuple(range(9))))
    wait_until(lambda: gated.runtime.engine._loop._decoder.full)
    gate.open()
    assert len(job.future.result(30).images) == 9


def test_what_nobody_waits_for_is_not_decoded(gated: Replica, gate: Gate) -> None:
    engine = gated.runtime.engine
    first = engine.submit(SHORT)
    wait_until(lambda: gate.sizes == [1])
    left, late, wanted = (engine.submit(SHORT) for _ in range(3))
    wait_until(lambda: engine._loop._decoder.full)
    engine.abandon(left, "client_left")
    late.deadline = time.monotonic()
    gate.open()
    with pytest.raises(Cancelled):
        left.future.result(20)
    with pytest.raises(DeadlineExceeded):
        late.future.result(20)
    assert len(first.future.result(20).images) == len(wanted.future.result(20).images) == 1
    assert gate.sizes == [1, 1]


def test_a_drain_ends_in_time_however_slow_the_decoder_is(
    settings: Settings, start_replica: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = start_replica(settings.model_copy(update={"max_batch": 4})).runtime.engine

    def slow(latents: Sequence[Tensor]) -> list[Image.Image]:
        time.sleep(1)
        return [PICTURE] * len(latents)

    monkeypatch.setattr(engine._loop._decoder, "decode", slow)
    sizes = (32, 40, 48, 56)  # one batch of the decoder each
    jobs = [engine.submit(replace(SHORT, width=size)) for size in sizes]
    wait_until(lambda: engine.running == 4)
    began = time.monotonic()
    engine.drain(0.2)
    assert time.monotonic() - began < 3
    with pytest.raises(NotReady):
        jobs[-1].future.result(0)


def test_previews_are_left_out_while_the_decoder_is_behind(gate: Gate) -> None:
    decoder = Decoder(None, None)  # type: ignore[arg-type] # the gate is in their place
    decoder.decode = gate  # type: ignore[method-assign]
    decoder.start()
    told: list[str] = []

    def order(kind: str) -> None:
        submit = decoder.preview if kind == "preview" else decoder.submit
        submit(torch.zeros(1, 4, 8, 8), lambda _: told.append(kind), wanted=lambda: True)

    order("first")
    wait_until(lambda: gate.sizes == [1])
    order("preview")
    for _ in range(7):
        order("image")
    order("preview")  # a whole batch waits
    gate.open()
    decoder.close()
    assert told == ["first", "preview", *["image"] * 7]


def test_a_stream_has_its_images_when_its_previews_were_left_out(
    gated: Replica, gate: Gate
) -> None:
    events: list[Event] = []
    engine = gated.runtime.engine
    job = engine.submit(replace(SHORT, seeds=(1, 2, 3), steps=20, previews=9), events.append)
    wait_until(lambda: engine._loop._decoder._images == 2)
    gate.open()
    assert len(job.future.result(30).images) == 3
    assert sum(isinstance(event, Previewed) for event in events) < 27
