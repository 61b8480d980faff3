"""Admission, batching, order, fairness, cancelling, deadlines and draining of the loop."""

import gc
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL.Image import Image
from prometheus_client import REGISTRY
from torch import Tensor

from service.errors import (
    Cancelled,
    DeadlineExceeded,
    GenerationFailed,
    NotReady,
    PolicyUnknown,
    QueueFull,
)
from service.generation.embed import EmbeddingCache
from service.generation.job import Job
from service.generation.queue import WaitingRoom
from service.generation.request import GenerationRequest
from service.generation.turns import Turns
from service.settings import Settings

from .replica import Replica, manifest

Start = Callable[[Settings], Replica]
LONG = 150  # steps: seconds of work on one core


def request(
    *, steps: int = 2, seeds: tuple[int, ...] = (1,), **fields: object
) -> GenerationRequest:
    return GenerationRequest(
        prompt="a photo of a pistol",
        seeds=seeds,
        steps=steps,
        guidance_scale=3.0,
        width=32,
        height=32,
        **fields,  # type: ignore[arg-type]
    )


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def one_at_a_time(settings: Settings, start_replica: Start) -> Replica:
    return start_replica(settings.model_copy(update={"max_batch": 1}))


def test_jobs_come_out_whole_and_in_order(one_at_a_time: Replica) -> None:
    replica = one_at_a_time
    engine = replica.runtime.engine
    jobs = [engine.submit(request(seeds=(seed, seed + 1))) for seed in (1, 5, 9)]
    wait([job.future for job in jobs], timeout=60)
    results = [job.future.result() for job in jobs]
    assert [result.request.seeds for result in results] == [(1, 2), (5, 6), (9, 10)]
    assert [len(result.images) for result in results] == [2, 2, 2]
    assert {result.revision for result in results} == {1}
    waits = [result.queue_seconds for result in results]
    assert waits == sorted(waits)


def test_image_i_of_n_is_the_image_of_its_own_seed(replica: Replica) -> None:
    engine = replica.runtime.engine
    together = engine.submit(request(seeds=(4, 5))).future.result(60)
    alone = engine.submit(request(seeds=(5,))).future.result(60)
    both = (np.asarray(one).astype(int) for one in (together.images[1], alone.images[0]))
    assert np.abs(np.subtract(*both)).max() <= 1


def test_what_waits_during_an_edit_is_drawn_under_the_edit(one_at_a_time: Replica) -> None:
    replica = one_at_a_time
    engine = replica.runtime.engine
    running = engine.submit(request(steps=LONG))
    wait_until(lambda: engine.running == 1)
    waiting = engine.submit(request())
    assert replica.publish(manifest()).status_code == 201
    assert running.future.result(60).revision == 1
    assert waiting.future.result(60).revision == 2


def test_a_full_queue_refuses_and_says_when_to_come_back(
    settings: Settings, start_replica: Start
) -> None:
    replica = start_replica(settings.model_copy(update={"max_queue": 2, "max_batch": 1}))
    engine = replica.runtime.engine
    engine.submit(request(steps=20)).future.result(60)  # the service rate is measured
    refused_before = sample("quickfix_rejected_total", reason="queue_full")
    running = engine.submit(request(steps=LONG))
    wait_until(lambda: engine.running == 1)
    waiting = [engine.submit(request(steps=LONG)) for _ in range(2)]
    with pytest.raises(QueueFull) as full:
        engine.submit(request())
    assert 1 <= full.value.retry_after <= 60
    wait_until(lambda: engine._room._rows_drawn > 0)
    assert engine._room._rows_drawn <= 2 * LONG  # what runs, no more
    answer = replica.draw()
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert answer.json()["error"]["type"] == "queue_full"
    assert sample("quickfix_rejected_total", reason="queue_full") == refused_before + 2
    for job in (running, *waiting):
        engine.abandon(job, "client_left")


def test_who_has_its_image_finds_the_place_that_it_left(
    settings: Settings, start_replica: Start
) -> None:
    """One drawn and one waiting: two clients that ask again at once never meet a full queue."""
    engine = start_replica(
        settings.model_copy(update={"max_queue": 1, "max_batch": 1})
    ).runtime.engine
    again: list[Job] = []
    refused: list[QueueFull] = []

    def ask_again(_future: object) -> None:  # runs in the denoising thread, before its next job
        try:
            again.append(engine.submit(request()))
        except QueueFull as error:
            refused.append(error)

    running = engine.submit(request(steps=LONG))
    running.future.add_done_callback(ask_again)
    waiting = engine.submit(request())
    for job in (running, waiting):
        job.future.result(60)
    assert refused == []
    assert len(again[0].future.result(60).images) == 1


def test_the_places_of_the_loop_add_to_those_that_may_wait() -> None:
    room = WaitingRoom(1)
    jobs = [Job(request(), deadline=time.monotonic() + 60) for _ in range(4)]
    assert room.take(1, wait=False) is None
    room.enter(jobs[0])
    room.enter(jobs[1])
    with pytest.raises(QueueFull):
        room.enter(jobs[2])
    assert room.take(1, wait=False) is jobs[0]
    assert room.take(0, wait=False) is None
    with pytest.raises(QueueFull):
        room.enter(jobs[2])
    room.freed(1)
    room.enter(jobs[2])
    with pytest.raises(QueueFull):
        room.enter(jobs[3])


def test_retry_after_follows_the_measured_rate() -> None:
    room = WaitingRoom(1)
    job = Job(request(steps=50), deadline=time.monotonic() + 60)  # 100 rows of UNet passes
    room.stepped(rows=20, seconds=4.0, left=0)
    room.enter(job)
    with pytest.raises(QueueFull) as full:
        room.enter(Job(request(), deadline=0.0))
    assert full.value.retry_after == 10
    room.stepped(rows=20, seconds=4.0, left=60)
    with pytest.raises(QueueFull) as full:
        room.enter(Job(request(), deadline=0.0))
    assert full.value.retry_after == 10 + 12, "what runs comes first"


def test_jobs_that_start_over_keep_the_order_in_which_they_came() -> None:
    room = WaitingRoom(8)
    first, second, third = (Job(request(), deadline=time.monotonic() + 60) for _ in range(3))
    for job in (first, second, third):
        room.enter(job)
    taken = [room.take(3, wait=False) for _ in range(2)]
    assert taken == [first, second]
    room.enter_again(first)
    room.enter_again(second)
    assert [room.take(3, wait=False) for _ in range(3)] == [first, second, third]


def test_a_prompt_that_the_edited_encoder_fails_on_counts_against_its_revision(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A canary halts its rollout for that."""
    engine, runs = replica.runtime.engine, replica.runtime.activator.runs

    def fails(*_arguments: object) -> Tensor:
        raise RuntimeError("the encoder failed")

    before = runs.tally.failed
    with monkeypatch.context() as patch:
        patch.setattr(replica.runtime.prompts, "encode", fails)
        with pytest.raises(GenerationFailed):
            engine.submit(replace(request(), prompt="a prompt of its own")).future.result(60)
    assert runs.tally.failed == before + 1


def test_a_drain_stops_what_has_its_prompt_encoded_when_its_time_is_over(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not drawn to its end, however long that is."""
    engine = replica.runtime.engine
    encode, begun, go_on = replica.runtime.prompts.encode, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Tensor:
        begun.set()
        assert go_on.wait(60)
        return encode(*arguments)

    monkeypatch.setattr(replica.runtime.prompts, "encode", slow)
    job = engine.submit(replace(request(steps=LONG), prompt="a prompt of its own"))
    assert begun.wait(60)
    draining = threading.Thread(target=engine.drain, args=(0.05,))
    draining.start()
    draining.join(0.3)
    assert draining.is_alive()
    go_on.set()
    with pytest.raises(NotReady):
        job.future.result(60)
    draining.join(60)
    assert not draining.is_alive()


def test_a_request_that_meets_a_closed_room_is_counted_as_rejected(replica: Replica) -> None:
    engine = replica.runtime.engine
    engine._room.close()
    before = sample("quickfix_rejected_total", reason="not_ready")
    with pytest.raises(NotReady):
        engine.submit(request())
    assert sample("quickfix_rejected_total", reason="not_ready") == before + 1


def test_the_decoder_holds_nothing_once_it_is_idle(replica: Replica) -> None:
    """Not the latents, nor the snapshot and its edited encoders that they were drawn under."""
    job = replica.runtime.engine.submit(request())
    job.future.result(60)
    seen = weakref.ref(job)
    job.release()
    del job
    wait_until(lambda: gc.collect() >= 0 and seen() is None)


def test_a_cancelled_job_frees_the_loop_within_two_steps(replica: Replica) -> None:
    engine = replica.runtime.engine
    job = engine.submit(request(steps=LONG))
    count = "quickfix_step_seconds_count"
    before = sample(count)
    wait_until(lambda: sample(count) >= before + 3)
    engine.abandon(job, "client_left")
    at_cancel = sample(count)
    with pytest.raises(Cancelled):
        job.future.result(20)
    assert sample(count) - at_cancel <= 2
    assert engine.submit(request()).future.result(60).revision == 1


def test_a_waiting_job_that_is_given_up_frees_its_place_at_once(one_at_a_time: Replica) -> None:
    replica = one_at_a_time
    engine = replica.runtime.engine
    running = engine.submit(request(steps=LONG))
    wait_until(lambda: engine.running == 1)
    waiting = engine.submit(request())
    assert engine.waiting == 1
    engine.abandon(waiting, "client_left")
    assert engine.waiting == 0
    assert waiting.future.cancelled()
    engine.abandon(running, "client_left")


def test_the_deadline_stops_a_running_job(settings: Settings, start_replica: Start) -> None:
    replica = start_replica(settings.model_copy(update={"request_timeout_seconds": 0.3}))
    job = replica.runtime.engine.submit(request(steps=LONG, seeds=tuple(range(10))))
    with pytest.raises(DeadlineExceeded):
        job.future.result(20)
    answer = replica.draw(steps=LONG, size="64x64")
    assert answer.status_code == 504
    assert answer.json()["error"]["type"] == "deadline_exceeded"
    wait_until(lambda: replica.runtime.engine.running == 0)


def test_a_request_that_fails_fails_alone(replica: Replica) -> None:
    engine = replica.runtime.engine
    bad = engine.submit(
        GenerationRequest(
            prompt="a cat", seeds=(1,), steps=2, guidance_scale=float("inf"), width=32, height=32
        )
    )
    good = engine.submit(request())
    with pytest.raises(GenerationFailed):
        bad.future.result(60)
    assert good.future.result(60).revision == 1
    assert engine.alive


def test_an_unknown_policy_is_refused_before_it_waits(replica: Replica) -> None:
    with pytest.raises(PolicyUnknown, match="default"):
        replica.runtime.engine.submit(request(policy="no-such"))


def test_draining_finishes_what_runs_and_refuses_what_is_new(one_at_a_time: Replica) -> None:
    replica = one_at_a_time
    engine = replica.runtime.engine
    running = engine.submit(request(steps=40))
    wait_until(lambda: engine.running == 1)
    waiting = engine.submit(request())
    engine.drain(60.0)
    assert running.future.result(0).revision == 1
    with pytest.raises(NotReady):
        waiting.future.result(0)
    with pytest.raises(NotReady):
        engine.submit(request())
    assert not replica.runtime.ready
    assert replica.draw().status_code == 503


def test_draining_stops_what_does_not_finish_in_time(replica: Replica) -> None:
    engine = replica.runtime.engine
    running = engine.submit(request(steps=LONG, seeds=tuple(range(10))))
    wait_until(lambda: engine.running == 1)
    began = time.monotonic()
    engine.drain(0.1)
    assert time.monotonic() - began < 5
    with pytest.raises(NotReady):
        running.future.result(0)


def test_requests_that_differ_in_everything_share_steps(replica: Replica) -> None:
    """Steps, guidance, scheduler, policy: what has one shape is drawn with one pass."""
    engine = replica.runtime.engine
    assert replica.publish(manifest()).status_code == 201
    body = {"name": "lenient", "edits": []}
    answer = replica.client.put("/admin/policies", json=body, headers=replica.operator)
    assert answer.status_code == 200
    wanted = [
        request(steps=40),
        replace(request(steps=50), guidance_scale=1.0),
        replace(request(steps=60), scheduler="dpm++"),
        replace(request(steps=45), policy="lenient"),
    ]
    alone = [engine.submit(one).future.result(60) for one in wanted]
    steps, images = sample("quickfix_step_seconds_count"), sample("quickfix_batch_size_sum")
    jobs = [engine.submit(one) for one in wanted]
    together = [job.future.result(60) for job in jobs]
    assert sample("quickfix_batch_size_sum") - images == 40 + 50 + 60 + 45
    assert sample("quickfix_step_seconds_count") - steps < 100  # one after the other: 195
    for first, second in zip(alone, together, strict=True):
        assert first.revision == second.revision == 3
        difference = np.subtract(
            *(np.asarray(one.images[0]).astype(int) for one in (first, second))
        )
        assert np.abs(difference).max() <= 1
    pictures = [np.asarray(one.images[0]) for one in together]
    assert not np.array_equal(pictures[0], pictures[3])


def test_a_request_of_more_images_than_places_takes_them_as_they_come_free(
    settings: Settings, start_replica: Start
) -> None:
    engine = start_replica(settings.model_copy(update={"max_batch": 3})).runtime.engine
    many = engine.submit(request(steps=6, seeds=tuple(range(7))))
    late = engine.submit(request(steps=2, seeds=(3,)))
    drawn = many.future.result(60)
    assert len(drawn.images) == 7
    (alone,) = late.future.result(60).images
    assert np.asarray(alone).shape == np.asarray(drawn.images[3]).shape
    assert sample("quickfix_running") == 0


def test_a_long_request_is_not_starved_by_a_stream_of_short_ones(
    settings: Settings, start_replica: Start
) -> None:
    engine = start_replica(settings.model_copy(update={"max_batch": 2})).runtime.engine
    short = [engine.submit(request(steps=3)) for _ in range(10)]
    long = engine.submit(request(steps=20))
    after = [engine.submit(request(steps=3)) for _ in range(30)]
    order: list[str] = []
    long.future.add_done_callback(lambda _future: order.append("long"))
    for job in after:
        job.future.add_done_callback(lambda _future: order.append("short"))
    wait([job.future for job in (*short, long, *after)], timeout=120)
    assert order.index("long") <= 10  # beside it, the other place draws some seven short ones


def test_a_large_image_does_not_hold_up_small_ones(replica: Replica) -> None:
    engine = replica.runtime.engine
    large = engine.submit(replace(request(steps=LONG), width=64, height=64))
    wait_until(lambda: engine.running == 1)
    small = engine.submit(request(steps=5))
    assert len(small.future.result(60).images) == 1
    assert not large.future.done()
    engine.abandon(large, "client_left")


def test_an_image_that_cannot_be_decoded_ends_its_request_and_no_other(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = replica.runtime.engine
    decoder = engine._loop._decoder
    decode = decoder.decode

    def fails_on_large(latents: Sequence[Tensor]) -> list[Image]:
        if latents[0].shape[-1] > 8:
            raise RuntimeError("the VAE is out of memory")
        return decode(latents)

    monkeypatch.setattr(decoder, "decode", fails_on_large)
    bad = engine.submit(replace(request(steps=3, seeds=(1, 2, 3)), width=64, height=64))
    good = engine.submit(request(steps=8))
    with pytest.raises(GenerationFailed):
        bad.future.result(60)
    assert len(good.future.result(60).images) == 1
    assert engine.running == 0
    assert engine.alive


def test_what_did_not_fit_into_memory_is_forgotten_once_nothing_is_drawn(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All requests of one size: no other group comes in between."""
    engine = replica.runtime.engine
    batches = engine._loop._batches
    predict = batches._backend.predict
    sizes: list[int] = []

    def short_of_memory(latents: Tensor, *rest: Tensor, **options: object) -> Tensor:
        sizes.append(len(latents))
        if len(latents) > 4:
            raise torch.OutOfMemoryError("no memory")
        return predict(latents, *rest, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(batches._backend, "predict", short_of_memory)
    for _ in range(2):
        assert (
            len(engine.submit(request(steps=3, seeds=(1, 2, 3, 4))).future.result(60).images) == 4
        )
        wait_until(lambda: not batches._fits)
    assert sizes == 2 * [8, 4, 4, 4, 4, 4, 4]
    assert engine.alive


def test_groups_get_the_same_time_whatever_their_steps_cost() -> None:
    turns = Turns()
    cost = {"small": 1.0, "large": 4.0}
    used = dict.fromkeys(cost, 0.0)
    for _ in range(1000):
        group = turns.next(cost)
        turns.took(group, cost[group])
        used[group] += cost[group]
    assert abs(used["small"] - used["large"]) <= 4


def test_a_group_that_comes_late_has_no_claim_to_the_time_before() -> None:
    turns = Turns()
    for _ in range(100):
        turns.took(turns.next(["old"]), 1.0)
    picked = []
    for _ in range(10):
        group = turns.next(["old", "new"])
        turns.took(group, 1.0)
        picked.append(group)
    assert picked.count("new") == 5


def test_an_endless_row_of_newcomers_does_not_starve_a_group_that_is_ahead() -> None:
    turns = Turns()
    names = (f"new-{number}" for number in itertools.count())
    newcomers = [next(names), next(names)]
    used = {"large": 0.0, "new": 0.0}
    for _ in range(500):
        group = turns.next(["large", *newcomers])
        seconds = 1.0 if group == "large" else 0.1
        turns.took(group, seconds)
        used["large" if group == "large" else "new"] += seconds
        if group != "large":  # one step, and another one comes before the next pass
            newcomers = [*(name for name in newcomers if name != group), next(names)]
    assert used["large"] / sum(used.values()) == pytest.approx(1 / 3, abs=0.03)


def test_a_group_that_leaves_after_each_step_gets_no_more_than_one_that_stays() -> None:
    turns = Turns()
    used = {"stays": 0.0, "leaves": 0.0}
    away = False
    for _ in range(500):
        group = turns.next(["stays"] if away else ["stays", "leaves"])
        seconds = 1.0 if group == "stays" else 4.0
        turns.took(group, seconds)
        used[group] += seconds
        away = group == "leaves"
    assert used["leaves"] / sum(used.values()) == pytest.approx(0.5, abs=0.02)


def test_a_group_that_was_served_early_and_left_puts_no_newcomer_behind() -> None:
    turns = Turns()
    for number in range(50):  # each is drawn once, first, and leaves
        turns.took(turns.next([f"brief-{number}", "stays"]), 1.0)
        turns.took(turns.next(["stays"]), 1.0)
    picked = []
    for _ in range(10):
        picked.append(turns.next(["stays", "new"]))
        turns.took(picked[-1], 1.0)
    assert 4 <= picked.count("new") <= 6


def test_embeddings_are_held_within_a_bound_and_the_last_used_stay() -> None:
    cache = EmbeddingCache(max_bytes=3 * 40)
    rows = {name: torch.full((1, 10), float(i)) for i, name in enumerate("abcd")}
    for name in "abc":
        cache.put("sha256:1", name, rows[name])
    assert cache.get("sha256:1", "a") is rows["a"]
    cache.put("sha256:1", "d", rows["d"])
    assert cache.nbytes == 120
    assert cache.get("sha256:1", "b") is None
    assert cache.get("sha256:2", "a") is None
    cache.put("sha256:1", "large", torch.zeros(1, 1000))
    assert cache.get("sha256:1", "large") is None
    assert cache.nbytes == 120


def test_a_prompt_is_encoded_once_for_all_who_ask_for_it(replica: Replica) -> None:
    engine = replica.runtime.engine
    misses = sample("quickfix_encode_cache_total", result="miss")
    jobs = [engine.submit(request(seeds=(seed,))) for seed in range(5)]
    wait([job.future for job in jobs], timeout=60)
    assert sample("quickfix_encode_cache_total", result="miss") - misses <= 2  # and the empty one
    assert len({np.asarray(job.future.result().images[0]).tobytes() for job in jobs}) == 5
