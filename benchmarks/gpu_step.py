"""Passes of a UNet of Stable Diffusion 1.x's size on a GPU, and what disturbs them.

    python -m benchmarks.gpu_step --dtype float16

Medians of what one thread waits for, 512 x 512 pixels, random weights (benchmarks/sd1_size.py):
passes by rows, as diffusers runs them, channels last, recorded and compiled; a step of many
drawings beside its pass; decoding; a pass while another thread decodes, or computes in Python.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from benchmarks import sd1_size
from benchmarks.gil_switch import Neighbour
from service.generation.backends import TorchBackend
from service.generation.batch import Batches
from service.generation.drawing import Drawing
from service.generation.schedulers import Schedulers

ROWS = (1, 2, 4, 8, 16, 32)
WARM, REPEATS = 3, 15
SEED = 0


def milliseconds(call: Callable[[], object], *, repeats: int = REPEATS, warm: int = WARM) -> float:
    """The median of calls that end when the device has."""
    for _ in range(warm):
        call()
    torch.cuda.synchronize()
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return round(1000 * median(taken), 2)


def inputs(rows: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, timesteps and embeddings of so many rows."""
    return (
        torch.randn(rows, 4, 64, 64, device="cuda", dtype=dtype),
        torch.full((rows,), 500.0, device="cuda"),
        torch.randn(rows, 77, 768, device="cuda", dtype=dtype),
    )


def passes(predict: Callable[..., Tensor], dtype: torch.dtype) -> dict[str, Any]:
    """Milliseconds by rows, and what the first pass of each size took."""
    by_rows, first = {}, {}
    for rows in ROWS:
        given = inputs(rows, dtype)
        started = time.perf_counter()
        predict(*given)
        torch.cuda.synchronize()
        first[rows] = round(1000 * (time.perf_counter() - started), 1)
        by_rows[rows] = milliseconds(lambda given=given: predict(*given))
    return {"ms_by_rows": by_rows, "first_ms_by_rows": first}


def steps_of_drawings(backend: TorchBackend, pipeline: Any, dtype: torch.dtype) -> dict[int, Any]:
    """A step of the loop with so many guided drawings, and its pass alone."""
    schedulers = Schedulers(pipeline.scheduler)
    found = {}
    for count in (1, 4, 8, 16):
        embeddings = torch.randn(2, 77, 768, device="cuda", dtype=dtype)
        drawings = [
            Drawing(
                embeddings,
                schedulers.new("dpm++", 200),
                seed=seed,
                guidance_scale=7.5,
                shape=(4, 64, 64),
            )
            for seed in range(count)
        ]
        batches = Batches(backend)
        given = inputs(2 * count, dtype)
        found[count] = {
            "step_ms": milliseconds(lambda d=drawings, b=batches: b.step(d)),
            "pass_ms": milliseconds(lambda given=given: backend.predict(*given)),
        }
    return found


def beside(backend: TorchBackend, dtype: torch.dtype, work: Callable[[], object]) -> float:
    """A pass of 16 rows while another thread does that work without a pause."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.is_set():
            work()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        given = inputs(16, dtype)
        return milliseconds(lambda: backend.predict(*given))
    finally:
        ended.set()
        thread.join()


def beside_python(
    backends: dict[str, TorchBackend], dtype: torch.dtype
) -> dict[str, dict[float, float]]:
    """A pass of 2 rows while another thread computes in Python, by the switch interval's ms."""
    usual = sys.getswitchinterval()
    neighbour = Neighbour()
    given = inputs(2, dtype)
    found: dict[str, dict[float, float]] = {}
    try:
        neighbour.work()
        for name, backend in backends.items():
            found[name] = {}
            for interval in (usual, 0.0005, 0.0001):
                sys.setswitchinterval(interval)
                found[name][1000 * interval] = milliseconds(
                    partial(backend.predict, *given), repeats=2, warm=0
                )
    finally:
        sys.setswitchinterval(usual)
        neighbour.end()
    return found


def main(
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float16",
    compiled: Annotated[bool, typer.Option(help="torch.compile too: minutes.")] = False,
    out: Path = Path("benchmarks/results/gpu/step.json"),
) -> None:
    """Measure, print, write."""
    torch.manual_seed(SEED)
    precision: torch.dtype = getattr(torch, dtype)
    pipeline = sd1_size.pipeline(seed=SEED, device="cuda").to(dtype=precision)
    unet = pipeline.unet

    @torch.inference_mode()
    def as_diffusers(latents: Tensor, timesteps: Tensor, embeddings: Tensor) -> Tensor:
        noise: Tensor = unet(
            latents, timesteps, encoder_hidden_states=embeddings, return_dict=False
        )[0]
        return noise

    found: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "dtype": dtype,
        "repeats": REPEATS,
        "seed": SEED,
        "as_diffusers": passes(as_diffusers, precision),
    }
    unet.to(memory_format=torch.channels_last)
    found["channels_last"] = passes(as_diffusers, precision)
    unet.to(memory_format=torch.contiguous_format)
    backend = TorchBackend(pipeline)
    found["decode_ms_by_pictures"] = {
        count: milliseconds(partial(backend.decode, inputs(count, precision)[0]))
        for count in (1, 2, 4, 8)
    }
    found["steps_of_drawings"] = steps_of_drawings(backend, pipeline, precision)
    latents = inputs(8, precision)[0]
    found["pass_of_16_rows_beside_decoding_ms"] = beside(
        backend, precision, lambda: backend.decode(latents)
    )
    started = time.perf_counter()
    recorded = TorchBackend(pipeline, cuda_graphs=True)
    found["cuda_graphs"] = {
        "recorded_in_seconds": round(time.perf_counter() - started, 2),
        "reserved_gib": round(torch.cuda.memory_reserved() / 2**30, 2),
        **passes(recorded.predict, precision),
    }
    found["pass_of_2_rows_beside_python_ms"] = beside_python(
        {"eager": backend, "cuda_graphs": recorded}, precision
    )
    if compiled:
        found["compiled"] = passes(TorchBackend(pipeline, compiled=True).predict, precision)
    text = json.dumps(found, indent=2)
    out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    typer.run(main)
