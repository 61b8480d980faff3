"""How long one UNet step and one decoding take: torch eager, torch channels last, onnxruntime.

    python -m benchmarks.onnx_step                          # the table of docs/adr/0011
    python -m benchmarks.onnx_step --rows 1,8 --repeats 9 --out benchmarks/results/onnx_step.json
    python -m benchmarks.onnx_step --beside-decoder         # while another thread decodes

All sides have the same threads, float32 and the same seeded latents, mixed timesteps and embeddings
of the model's text encoder. They take turns within every repeat. Medians over the repeats;
`ratio` is against torch eager as diffusers runs it. `cpu_ms` is CPU time of the whole process: on a
busy machine it says more than the wall clock.
"""

import copy
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import onnxruntime
import torch
import typer
from torch import Tensor

from edits.graphs import Graphs, VaeDecoder, cached_graphs
from edits.loading import load_pipeline
from service.generation.backends.load import check_against_torch
from service.generation.backends.onnx import OnnxBackend
from service.generation.backends.session import BoundSession
from service.generation.backends.torch import TorchBackend
from service.generation.encoder import PromptEncoder

PROMPTS = ("a photo of a cat", "a red robot on a table", "a painting by van gogh", "")
WARM_UP = 3

Inputs = tuple[Tensor, Tensor, Tensor]  # latents, timesteps, embeddings


class Eager:
    """The pipeline's modules as diffusers' pipelines run them."""

    def __init__(self, pipeline: Any) -> None:
        self._unet = pipeline.unet
        self._decoder = VaeDecoder(pipeline.vae)

    @torch.inference_mode()
    def predict(self, latents: Tensor, timesteps: Tensor, embeddings: Tensor) -> Tensor:
        """The UNet's output."""
        noise: Tensor = self._unet(
            latents, timesteps, encoder_hidden_states=embeddings, return_dict=False
        )[0]
        return noise

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Pixels."""
        pixels: Tensor = self._decoder(latents)
        return pixels


class Spinning(OnnxBackend):
    """The same with threads that wait for the UNet's next operation in another way."""

    def __init__(self, pipeline: Any, graphs: Graphs, *, threads: int, microseconds: int) -> None:
        super().__init__(pipeline, graphs, threads=threads)
        self._unet = BoundSession(
            graphs.unet,
            device=pipeline.unet.device,
            threads=threads,
            spin_microseconds=microseconds,
        )


def sides(pipeline: Any, cache: Path, *, threads: int, spins: Sequence[int]) -> dict[str, Any]:
    """Name -> backend, the ONNX ones checked against torch."""
    graphs = cached_graphs(pipeline, cache)
    found: dict[str, Any] = {
        "torch": Eager(copy.deepcopy(pipeline)),
        "torch_channels_last": TorchBackend(pipeline),
        "onnx": OnnxBackend(pipeline, graphs, threads=threads),
    }
    for spin in spins:
        found[f"onnx_spin_{spin}us"] = Spinning(
            pipeline, graphs, threads=threads, microseconds=spin
        )
    check_against_torch(found["onnx"], pipeline)
    return found


def timed(calls: dict[str, Callable[[], Any]], *, repeats: int, steps: int) -> dict[str, Any]:
    """Medians of wall and CPU milliseconds of one call, sides in turns."""
    wall: dict[str, list[float]] = {name: [] for name in calls}
    cpu: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    for _ in range(repeats):
        for name, call in calls.items():
            began, began_cpu = time.perf_counter(), time.process_time()
            for _ in range(steps):
                call()
            wall[name].append(1000 * (time.perf_counter() - began) / steps)
            cpu[name].append(1000 * (time.process_time() - began_cpu) / steps)
    base, base_cpu = statistics.median(wall["torch"]), statistics.median(cpu["torch"])
    return {
        name: {
            "ms": round(statistics.median(wall[name]), 3),
            "ratio": round(statistics.median(wall[name]) / base, 3),
            "cpu_ms": round(statistics.median(cpu[name]), 3),
            "cpu_ratio": round(statistics.median(cpu[name]) / base_cpu, 3),
        }
        for name in calls
    }


def beside(backend: Any, inputs: Inputs, *, repeats: int, steps: int) -> float:
    """Median milliseconds of a step while another thread decodes one image after the other."""
    stop = threading.Event()

    def decode() -> None:
        while not stop.is_set():
            backend.decode(inputs[0][:1])

    thread = threading.Thread(target=decode)
    thread.start()
    try:
        step = partial(backend.predict, *inputs)
        return float(timed({"torch": step}, repeats=repeats, steps=steps)["torch"]["ms"])
    finally:
        stop.set()
        thread.join()


def figures(
    backends: dict[str, Any], inputs: Inputs, *, repeats: int, steps: int, beside_decoder: bool
) -> dict[str, Any]:
    """`step` and `decode` of every side; with `beside_decoder` its step alone."""
    often = {"repeats": repeats, "steps": steps}
    if beside_decoder:  # every side beside its own decoder, so one after the other
        found = {name: beside(backend, inputs, **often) for name, backend in backends.items()}
        base = found["torch"]
        return {
            "step": {name: {"ms": ms, "ratio": round(ms / base, 3)} for name, ms in found.items()}
        }
    predicts = {name: partial(backend.predict, *inputs) for name, backend in backends.items()}
    decodes = {name: partial(backend.decode, inputs[0]) for name, backend in backends.items()}
    return {"step": timed(predicts, **often), "decode": timed(decodes, **often)}


def encoded(pipeline: Any) -> Tensor:
    """Embeddings (prompts, positions, features) of the model's own text encoder."""
    encoder = PromptEncoder(pipeline.tokenizer, device=torch.device("cpu"), dtype=torch.float32)
    return torch.cat([encoder.encode(pipeline.text_encoder, text) for text in PROMPTS])


def main(
    model: str = "models/demo",
    rows: Annotated[str, typer.Option(help="Rows of a batch, comma between.")] = "1,2,4,8,16,32",
    repeats: Annotated[int, typer.Option(min=1)] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Steps of one repeat.")] = 20,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    spins: Annotated[
        str, typer.Option(help="Also with threads that spin so many microseconds: 0,1000.")
    ] = "",
    beside_decoder: Annotated[
        bool, typer.Option(help="Another thread decodes on the same side meanwhile.")
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of graphs; default: a temporary one.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Time UNet steps and decodings of every backend."""
    torch.set_num_threads(threads)
    pipeline = load_pipeline(model)
    with tempfile.TemporaryDirectory(prefix="quickfix-") as temporary:
        others = [int(spin) for spin in spins.split(",") if spin]
        backends = sides(pipeline, cache or Path(temporary), threads=threads, spins=others)
    texts = encoded(pipeline)
    draw = torch.Generator().manual_seed(0)
    side = int(pipeline.unet.config.sample_size)
    found = {}
    for count in map(int, rows.split(",")):
        inputs = (
            torch.randn(count, int(pipeline.unet.config.in_channels), side, side, generator=draw),
            torch.randint(0, 1000, (count,), generator=draw),
            texts.repeat(-(-count // len(PROMPTS)), 1, 1)[:count],
        )
        found[str(count)] = figures(
            backends, inputs, repeats=repeats, steps=steps, beside_decoder=beside_decoder
        )
    document = {
        "model": Path(model).name,
        "provider": backends["onnx"].provider,
        "threads": threads,
        "dtype": "float32",
        "repeats": repeats,
        "steps": steps,
        "beside_decoder": beside_decoder,
        "torch": torch.__version__,
        "onnxruntime": onnxruntime.__version__,
        "rows": found,
    }
    text = json.dumps(document, indent=2)
    print(text)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
