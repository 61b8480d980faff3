"""What it gains to compute a request's text once: its embeddings, and their keys and values.

    python -m benchmarks.work_once --out benchmarks/results/work_once.json

Embeddings: the time of one image with guidance (two texts) whose texts are new, against one whose
texts the cache holds. Keys and values: a step of the UNet as it runs, against one whose
cross-attention is handed the keys and values instead of computing them, which is the most that a
cache of them could gain; and their share of the multiplications, which no noise touches, also
for a UNet of Stable Diffusion 1.x's shape. Both sides take turns; medians of the repeats, and the
range of the ratios taken in pairs.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edits.loading import load_pipeline
from service.generation.encoder import PromptEncoder

STEPS = 20  # of an image
CALLS = 5  # in one repeat


@contextmanager
def keys_and_values_given(unet: nn.Module) -> Iterator[None]:
    """Every cross-attention projection of the text answers what it answered last."""
    kept: dict[nn.Module, Tensor] = {}
    forwards: dict[nn.Module, Callable[[Tensor], Tensor]] = {}
    for name, module in unet.named_modules():
        if not name.endswith(("attn2.to_k", "attn2.to_v")):
            continue
        forwards[module] = module.forward

        def given(text: Tensor, module: nn.Module = module) -> Tensor:
            if module not in kept:
                kept[module] = forwards[module](text)
            return kept[module]

        module.forward = given  # type: ignore[method-assign]
    if not forwards:
        raise SystemExit("this UNet has no attn2.to_k: nothing to measure")
    try:
        yield
    finally:
        for module, forward in forwards.items():
            module.forward = forward  # type: ignore[method-assign]


def seconds(call: Callable[[], object]) -> float:
    """Of one call, by the mean of CALLS."""
    started = time.perf_counter()
    for _ in range(CALLS):
        call()
    return (time.perf_counter() - started) / CALLS


@torch.inference_mode()
def keys_and_values(pipeline: Any, rows: int, repeats: int) -> dict[str, Any]:
    """A step of `rows` latents: keys and values computed, and given."""
    unet, generator = pipeline.unet, torch.Generator().manual_seed(rows)
    config = unet.config
    latents = torch.randn(
        rows, config.in_channels, config.sample_size, config.sample_size, generator=generator
    ).contiguous(memory_format=torch.channels_last)
    texts = torch.randn(rows, 77, config.cross_attention_dim, generator=generator)
    timesteps = torch.full((rows,), 500)

    def step() -> None:
        unet(latents, timesteps, encoder_hidden_states=texts, return_dict=False)

    computed, given = [], []
    seconds(step)
    for _ in range(repeats):
        computed.append(seconds(step))
        with keys_and_values_given(unet):
            step()
            given.append(seconds(step))
    return {"rows": rows, **_compared("computed", computed, "given", given)}


@torch.inference_mode()
def share_of_multiplications(unet: nn.Module) -> float:
    """Keys and values of the text in all multiplications of a step of one latent."""
    config = unet.config
    device = next(unet.parameters()).device
    side = config.sample_size
    with FlopCounterMode(display=False) as counter:
        unet(
            torch.zeros(1, config.in_channels, side, side, device=device),
            torch.zeros(1, device=device),
            encoder_hidden_states=torch.zeros(1, 77, config.cross_attention_dim, device=device),
        )
    text = sum(
        sum(flops.values())
        for name, flops in counter.get_flop_counts().items()
        if name.endswith(("attn2.to_k", "attn2.to_v"))
    )
    return float(f"{text / counter.get_total_flops():.2g}")


def embeddings(pipeline: Any, repeats: int) -> dict[str, Any]:
    """Both texts of an image, encoded, against an image of STEPS steps of which they are a part."""
    prompts = PromptEncoder(pipeline.tokenizer, device=torch.device("cpu"), dtype=torch.float32)
    encoder = pipeline.text_encoder

    def encode() -> Tensor:
        return torch.cat([prompts.encode(encoder, text) for text in ("", "a photo of a cat")])

    held = encode()

    def image(texts: Callable[[], Tensor]) -> float:
        started = time.perf_counter()
        given = texts()
        pipeline(
            prompt_embeds=given[1:],
            negative_prompt_embeds=given[:1],
            num_inference_steps=STEPS,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        )
        return time.perf_counter() - started

    new, cached, alone = [], [], []
    image(encode)
    for _ in range(repeats):
        new.append(image(encode))
        cached.append(image(lambda: held))
        alone.append(seconds(encode))
    return {
        "steps": STEPS,
        "encode_ms": round(1e3 * median(alone), 2),
        **_compared("new", new, "cached", cached),
    }


def _compared(one: str, first: list[float], other: str, second: list[float]) -> dict[str, Any]:
    ratios = [b / a for a, b in zip(first, second, strict=True)]
    return {
        f"{one}_ms": round(1e3 * median(first), 2),
        f"{other}_ms": round(1e3 * median(second), 2),
        "ratio": round(median(second) / median(first), 3),
        "ratios": [round(min(ratios), 3), round(max(ratios), 3)],
        "n": len(ratios),
    }


def main(
    model: Annotated[str, typer.Option(help="A pipeline's folder.")] = "models/demo",
    rows: Annotated[str, typer.Option(help="Latents in a step, comma between.")] = "2,8,32",
    repeats: int = 21,
    threads: int = 2,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Measure, print, write."""
    torch.set_num_threads(threads)
    pipeline = load_pipeline(model)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet.to(memory_format=torch.channels_last)
    with torch.device("meta"):
        sd1 = UNet2DConditionModel(cross_attention_dim=768, sample_size=64)
    document = {
        "model": model,
        "threads": threads,
        "embeddings": embeddings(pipeline, repeats),
        "keys_and_values": [keys_and_values(pipeline, int(n), repeats) for n in rows.split(",")],
        "share_of_multiplications": {
            "model": share_of_multiplications(pipeline.unet),
            "sd-1.x": share_of_multiplications(sd1),
        },
    }
    print(json.dumps(document, indent=2))
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    typer.run(main)
