"""How much faster `quickfix trace text-encoder` is than the loop that one would write first.

The loop takes one prompt, one seed and one site at a time: it encodes the clean and the corrupted
caption with hooks on the text encoder, restores the site, and calls the whole pipeline for one
picture. Clean and corrupted pictures are drawn once per prompt and seed; with --three-runs they are
drawn anew for every site, as a loop over (clean, corrupted, restored) does. Both score all pictures
alike, so the benchmark also checks that the scores agree. Both run in this process, in turns.

    .venv/bin/python -m benchmarks.trace_speed
"""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor, nn

from edits.model_card import ModelDefaults
from edits.tracing.executors import TraceJob
from edits.tracing.options import TraceOptions
from edits.tracing.plan import CLEAN, CORRUPTED
from edits.tracing.positions import position_groups
from edits.tracing.prompts import TracePair, load_prompts
from edits.tracing.scores import score_all
from edits.tracing.text_encoder import TextSite, subject_noise
from edits.tracing.tracer import Tracer


def main(
    model: str = "models/demo",
    attribute: str = "object",
    prompts_file: Path | None = None,
    prompts: int = 2,
    seeds: int = 2,
    batch: Annotated[int, typer.Option(help="Of the trace.")] = 32,
    three_runs: Annotated[bool, typer.Option("--three-runs")] = False,
) -> None:
    """Time both on the first prompts of one attribute, and print JSON."""
    defaults = ModelDefaults.read(Path(model))
    pairs = load_prompts(prompts_file or Path(model) / "attributes.yaml")[attribute][:prompts]
    options = TraceOptions(
        seeds=seeds, batch=batch, steps=defaults.steps, guidance_scale=defaults.guidance_scale
    )
    job = TraceJob(model, {attribute: pairs}, options)
    tracer = job.tracer()
    plain = TraceJob(model, {attribute: pairs}, options).tracer()
    plain.layout.denoiser.to(memory_format=torch.contiguous_format)  # as diffusers loads it
    _warm(tracer)
    started = time.perf_counter()
    plan = tracer.plan()
    scores = {n: tracer.draw(part, plan.rows) for n, part in enumerate(plan.batches)}
    traced = time.perf_counter() - started
    array = plan.assemble(scores, len(tracer.scorers))[attribute]
    conditions = plan.conditions(attribute)
    worst, pictures, looped = 0.0, 0, 0.0
    _warm(plain)
    for i, pair in enumerate(pairs):
        for j in range(seeds):
            there = ~np.isnan(array[i, j, 0, :, 0])
            drawn = [name for name, is_there in zip(conditions, there, strict=True) if is_there]
            started = time.perf_counter()
            rows = []
            for name in drawn:
                before = (CLEAN, CORRUPTED) if three_runs and name not in (CLEAN, CORRUPTED) else ()
                rows.append(
                    [_one_by_one(plain, pair, options.seed + j, n) for n in (*before, name)][-1]
                )
            looped += time.perf_counter() - started
            pictures += len(rows)
            mine = array[i, j, 0, [conditions.index(name) for name in drawn]]
            worst = max(worst, float(np.abs(mine - np.array(rows)).max()))
    document = {
        "prompts": len(pairs),
        "seeds": seeds,
        "three_runs": three_runs,
        "runs": pictures,
        "pictures_of_the_trace": plan.pictures,
        "loop_seconds": round(looped, 1),
        "trace_seconds": round(traced, 1),
        "times_faster": round(looped / traced, 2),
        "loop_ms_per_run": round(1000 * looped / pictures),
        "trace_ms_per_picture": round(1000 * traced / plan.pictures),
        "largest_score_difference": worst,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(document, indent=2))


def _warm(tracer: Tracer) -> None:
    tracer.layout.draw(
        tracer.layout.encode(["a cat"]), tracer.layout.unconditional(), seeds=[0], steps=2,
        guidance_scale=tracer.options.guidance_scale,
    )  # fmt: skip


def _one_by_one(tracer: Tracer, pair: TracePair, seed: int, condition: str) -> list[float]:
    """One restored run from the caption to the score, nothing kept from the one before."""
    encoder = tracer.layout.encoders[0]
    pipeline = tracer.layout.pipeline
    hooks: list[Any] = []
    if condition != CLEAN:
        noise = subject_noise(encoder, pair.caption, noise=tracer.options.noise, draw=f"{seed}/0")
        restore: tuple[nn.Module, list[int], Tensor] | None = None
        if condition != CORRUPTED:
            site = TextSite.parse(condition)
            module = encoder.layers[site.layer].module(site.module)
            groups = position_groups(
                encoder, pair.caption, tracer.options.positions, param="caption"
            )
            restore = module, list(groups[site.position]), _output(pipeline, module, pair)
        for table in encoder.embeddings:
            hooks.append(table.register_forward_hook(lambda _m, _a, out: out + noise))
        if restore is not None:
            hooks.append(restore[0].register_forward_hook(_putting_back(*restore[1:])))
    try:
        with torch.inference_mode():
            hidden, _ = pipeline.encode_prompt(pair.caption.text, pipeline.device, 1, False)
    finally:
        for hook in hooks:
            hook.remove()
    picture = pipeline(
        prompt_embeds=hidden,
        negative_prompt_embeds=pipeline.encode_prompt("", pipeline.device, 1, False)[0],
        generator=torch.Generator().manual_seed(seed),
        num_inference_steps=tracer.options.steps,
        guidance_scale=tracer.options.guidance_scale,
    ).images[0]
    return score_all(tracer.scorers, [picture], [pair])[0]


@torch.inference_mode()
def _output(pipeline: Any, module: nn.Module, pair: TracePair) -> Tensor:
    """What the module answers in a clean run, (1, positions, width)."""
    answers: list[Tensor] = []
    handle = module.register_forward_hook(
        lambda _m, _a, out: answers.append(out[0] if isinstance(out, tuple) else out)
    )
    pipeline.encode_prompt(pair.caption.text, pipeline.device, 1, False)
    handle.remove()
    return answers[0]


def _putting_back(positions: list[int], clean: Tensor) -> Any:
    def hook(_module: nn.Module, _arguments: Any, output: Any) -> Any:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, positions] = clean[:, positions]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    return hook


if __name__ == "__main__":
    typer.run(main)
