"""What only a GPU can show: real memory that runs out, compiled passes, half precision."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from prometheus_client import REGISTRY

from edits.loading import load_pipeline
from edits.method import Editor, EditSpec
from service.generation.backends import TorchBackend
from service.generation.backends.cuda_graphs import MAX_ROWS
from service.generation.encoder import PromptEncoder
from service.generation.request import GenerationRequest
from service.settings import Settings

from .replica import Replica

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

Start = Callable[[Settings], Replica]


@pytest.fixture
def on_gpu(settings: Settings) -> Settings:
    return settings.model_copy(update={"device": "cuda"})


@pytest.fixture
def little_memory() -> Iterator[Callable[[int], None]]:
    """Lets torch take so many bytes more than it holds now, until the test ends."""
    total = torch.cuda.get_device_properties(0).total_memory

    def leave(spare: int) -> None:
        torch.cuda.empty_cache()
        held = torch.cuda.memory_reserved()
        torch.cuda.set_per_process_memory_fraction((held + spare) / total)

    yield leave
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def asked(seed: int, *, side: int = 32, steps: int = 4) -> GenerationRequest:
    return GenerationRequest("a photo of a cat", (seed,), steps, 3.0, side, side)


def drawn(replica: Replica, requests: list[GenerationRequest]) -> list[np.ndarray]:
    jobs = [replica.runtime.engine.submit(request) for request in requests]
    results = [job.future.result(120) for job in jobs]
    return [np.asarray(result.images[0]).astype(int) for result in results]


@pytest.mark.parametrize(
    ("dtype", "most", "mean"), [("float32", 1, 0.1), ("float16", 1, 1.0), ("bfloat16", 4, 4.0)]
)
def test_pictures_of_every_precision_are_those_of_diffusers_in_it(
    dtype: str,
    most: int,
    mean: float,
    on_gpu: Settings,
    start_replica: Start,
    record_property: Callable[[str, object], None],
) -> None:
    """Alone in every channel; beside others half precision takes other kernels and rounds more."""
    replica = start_replica(on_gpu.model_copy(update={"model": "models/demo", "dtype": dtype}))
    pipeline = load_pipeline("models/demo", device="cuda", dtype=getattr(torch, dtype))
    requests = [asked(seed, steps=8) for seed in range(6)]
    together = drawn(replica, requests)
    for request, shared in zip(requests, together, strict=True):
        picture = pipeline(
            request.prompt,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            height=request.height,
            width=request.width,
            generator=torch.Generator("cpu").manual_seed(request.seeds[0]),
        ).images[0]
        expected = np.asarray(picture).astype(int)
        (alone,) = drawn(replica, [request])
        record_property("alone_max", int(np.abs(alone - expected).max()))
        record_property("shared_mean", float(np.abs(shared - expected).mean()))
        assert expected.std() > 10
        assert np.abs(alone - expected).max() <= most
        assert np.abs(shared - expected).mean() <= mean


def test_a_batch_that_runs_out_of_memory_is_drawn_in_parts(
    on_gpu: Settings, start_replica: Start, little_memory: Callable[[int], None]
) -> None:
    """Attention over large latents: sixteen rows need far more than two."""
    replica = start_replica(on_gpu.model_copy(update={"max_batch": 16}))
    side = replica.runtime.model.sizes.largest
    requests = [asked(seed, side=side, steps=12) for seed in range(16)]
    expected = [drawn(replica, [request])[0] for request in requests]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    drawn(replica, requests[:2])
    few = torch.cuda.max_memory_allocated() - before
    splits = REGISTRY.get_sample_value("quickfix_batch_splits_total") or 0.0
    little_memory(2 * few)
    pictures = drawn(replica, requests)
    assert (REGISTRY.get_sample_value("quickfix_batch_splits_total") or 0.0) > splits
    for ours, alone in zip(pictures, expected, strict=True):
        assert np.abs(ours - alone).max() <= 1
    assert replica.runtime.alive


def test_a_compiled_unet_predicts_what_the_eager_one_does(sd1_folder: Path) -> None:
    eager = TorchBackend(load_pipeline(str(sd1_folder), device="cuda"))
    compiled = TorchBackend(load_pipeline(str(sd1_folder), device="cuda"), compiled=True)
    for rows in (1, 2, 5):
        latents = torch.randn(rows, 4, 8, 8, device="cuda")
        timesteps = torch.full((rows,), 500.0, device="cuda")
        embeddings = torch.randn(rows, 24, 32, device="cuda")
        ours = compiled.predict(latents, timesteps, embeddings)
        assert torch.allclose(ours, eager.predict(latents, timesteps, embeddings), atol=1e-3)


SPECS = [EditSpec("remove-pistol", "pistol", "toy"), EditSpec("remove-cat", "cat", "robot")]


def test_recorded_passes_predict_what_the_eager_ones_do(sd1_folder: Path) -> None:
    eager = TorchBackend(load_pipeline(str(sd1_folder), device="cuda"))
    recorded = TorchBackend(load_pipeline(str(sd1_folder), device="cuda"), cuda_graphs=True)
    for rows in (1, 2, 5, MAX_ROWS, MAX_ROWS + 1):
        for step in (999.0, 1.0):
            given = (
                torch.randn(rows, 4, 8, 8, device="cuda"),
                torch.full((rows,), step, device="cuda"),
                torch.randn(rows, 24, 32, device="cuda"),
            )
            ours = recorded.predict(*given)
            kept = ours.clone()
            assert torch.allclose(ours, eager.predict(*given), atol=1e-3)
            recorded.predict(*(each + 1 for each in given))
            assert torch.equal(ours, kept), "the next pass writes elsewhere"


def test_with_recorded_passes_pictures_do_not_depend_on_who_shares_a_batch(
    on_gpu: Settings, start_replica: Start
) -> None:
    """Some passes are recorded, those of more rows are not."""
    replica = start_replica(on_gpu.model_copy(update={"cuda_graphs": True}))
    requests = [asked(seed, steps=3 + seed % 4) for seed in range(12)]
    expected = [drawn(replica, [request])[0] for request in requests]
    for ours, alone in zip(drawn(replica, requests), expected, strict=True):
        assert np.abs(ours - alone).max() <= 1


def test_an_edit_has_the_same_weights_on_both_devices(sd1_folder: Path) -> None:
    """Solves run in double precision on the CPU; what they read was captured on the device."""
    weights = {}
    for device in ("cpu", "cuda"):
        editor = Editor(load_pipeline(str(sd1_folder), device=device), ordinary=("robot", "beer"))
        (weights[device],) = (each.cpu() for each in editor.compose(SPECS).weights.values())
    assert float((weights["cuda"] - weights["cpu"]).norm() / weights["cpu"].norm()) <= 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_empty_prompt_does_not_move_by_a_bit(dtype: torch.dtype, sd1_folder: Path) -> None:
    pipeline = load_pipeline(str(sd1_folder), device="cuda", dtype=dtype)
    editor = Editor(pipeline, ordinary=("robot", "beer"))
    edited = editor.apply(editor.compose(SPECS))["text_encoder"]
    prompts = PromptEncoder(pipeline.tokenizer, device=pipeline.device, dtype=dtype)

    def moved(prompt: str) -> float:
        before = prompts.encode(pipeline.text_encoder, prompt)
        return float((prompts.encode(edited, prompt) - before).abs().max())

    assert moved("") == 0.0
    assert moved("a photo of a pistol") > 0.0


def test_pictures_are_decoded_beside_the_steps_of_others(
    on_gpu: Settings, start_replica: Start
) -> None:
    """Streams of short requests and one long one: all come out as they would alone."""
    replica = start_replica(on_gpu)
    requests = [asked(seed, steps=2 + seed % 3) for seed in range(24)]
    expected = [drawn(replica, [request])[0] for request in requests]
    found: dict[int, np.ndarray] = {}

    def ask(numbers: range) -> None:
        for number in numbers:
            (found[number],) = drawn(replica, [requests[number]])

    threads = [threading.Thread(target=ask, args=(range(n, 24, 6),)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, alone in enumerate(expected):
        assert np.abs(found[number] - alone).max() <= 1


def test_a_thread_that_computes_in_python_does_not_starve_the_loop(
    on_gpu: Settings, start_replica: Start
) -> None:
    """On a CPU images then take 5 times as long, with CPython's switch interval 75 to 150 times."""
    replica = start_replica(on_gpu)

    def seconds() -> float:
        started = time.perf_counter()
        replica.runtime.engine.submit(asked(1, steps=8)).future.result(60)
        return time.perf_counter() - started

    seconds()
    alone = min(seconds() for _ in range(3))
    ended = threading.Event()

    def compute() -> None:
        while not ended.is_set():
            sum(range(100))

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        beside = min(seconds() for _ in range(3))
    finally:
        ended.set()
        thread.join()
    assert beside <= 20 * alone
