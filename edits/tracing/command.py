"""`quickfix trace`: its options and checks. No model runs before all checks have passed."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edits.errors import TraceInvalid
from edits.terminal import console, progress, show, trace_tables

PROMPTS_FILE = "attributes.yaml"


def trace(
    target: Annotated[
        str, typer.Argument(help="text-encoder, unet (or SD 3's transformer), cross-attention.")
    ] = "text-encoder",
    model: Annotated[str, typer.Option(help="Pipeline folder or hub id.")] = "models/demo",
    prompts: Annotated[
        Path | None, typer.Option(help=f"Caption pairs; default: the model's {PROMPTS_FILE}.")
    ] = None,
    attribute: Annotated[
        list[str] | None, typer.Option(help="Trace this one only; may be repeated.")
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(help="Only the first so many pairs of each attribute.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Pictures of every prompt and site.")] = 2,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    draws: Annotated[int, typer.Option(help="Noise draws for every seed.")] = 1,
    noise: Annotated[float, typer.Option(help="Noise, in embedding standard deviations.")] = 6.0,
    position: Annotated[
        list[str] | None,
        typer.Option(help="subject, last, later, words, end, padding or earlier; repeatable."),
    ] = None,
    module: Annotated[
        list[str] | None, typer.Option(help="Restore this module or kind only; repeatable.")
    ] = None,
    window: Annotated[int, typer.Option(help="Cross-attention layers replaced together.")] = 1,
    first_step: Annotated[int, typer.Option(help="First denoising step to restore in.")] = 0,
    last_step: Annotated[int | None, typer.Option(help="The step to stop before.")] = None,
    branches: Annotated[str, typer.Option(help="Guidance halves: both, conditional.")] = "both",
    steps: Annotated[int | None, typer.Option(help="Default: the model's.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Default: the model's.")] = None,
    batch: Annotated[int, typer.Option(help="Pictures that are drawn together.")] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float32",
    clip_model: Annotated[
        str | None, typer.Option(help="CLIP model (folder or hub id) that scores the pictures.")
    ] = None,
    executor: Annotated[str, typer.Option(help="local, or ray.")] = "local",
    workers: Annotated[int, typer.Option(help="Ray actors.")] = 2,
    ray_address: Annotated[str | None, typer.Option(help="A running Ray cluster.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the result; default: out/trace/TARGET.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw away the trace that --out holds.")
    ] = False,
    write_sites: Annotated[
        bool, typer.Option("--write-sites", help="Make the causal site the model's default.")
    ] = False,
    top: Annotated[int, typer.Option(help="Rows of each table.")] = 12,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Find where a model keeps concepts: restore one site at a time in a corrupted run."""
    from edits.model_card import ModelDefaults
    from edits.tracing.executors import LocalExecutor, RayExecutor, TraceJob
    from edits.tracing.options import TraceOptions
    from edits.tracing.prompts import load_prompts, select
    from edits.tracing.run import forget, run_trace

    defaults = ModelDefaults.read(Path(model))
    given: dict[str, Any] = {
        "target": target,
        "seeds": seeds,
        "seed": seed,
        "draws": draws,
        "noise": noise,
        "modules": tuple(module or ()),
        "window": window,
        "first_step": first_step,
        "last_step": last_step,
        "branches": branches,
        "steps": steps if steps is not None else defaults.steps,
        "guidance_scale": (
            guidance_scale if guidance_scale is not None else defaults.guidance_scale
        ),
        "batch": batch,
    }
    if position:
        given["positions"] = tuple(position)
    options = TraceOptions.checked(**given)
    if executor not in ("local", "ray"):
        raise TraceInvalid(f"executor {executor!r} is neither local nor ray", param="executor")
    if dtype not in ("float32", "float16", "bfloat16"):
        raise TraceInvalid(f"dtype {dtype!r} is not float32, float16 or bfloat16", param="dtype")
    if write_sites and not (target == "text-encoder" and Path(model).is_dir()):
        raise TraceInvalid(
            "--write-sites needs a trace of the text-encoder and a model folder to write to",
            param="write_sites",
        )
    chosen = select(load_prompts(prompts or Path(model) / PROMPTS_FILE), attribute or ())
    if pairs is not None:
        if pairs < 1:
            raise TraceInvalid("pairs: at least one is needed", param="pairs")
        chosen = {name: part[:pairs] for name, part in chosen.items()}
    job = TraceJob(model, chosen, options, device=device, dtype=dtype, clip_model=clip_model)
    folder = out or Path("out/trace") / target
    tracer = job.tracer()
    chooser = (
        RayExecutor(
            job, workers=workers, address=ray_address, gpus=1.0 if "cuda" in device else 0.0
        )
        if executor == "ray"
        else LocalExecutor(tracer)
    )
    if fresh:
        forget(folder)
    with progress("pictures", None) as bar:
        result = run_trace(job, tracer, chooser, folder, on_plan=bar.expect, advance=bar)
    document = result.model_dump(mode="json")
    show(document, as_json, *trace_tables(document, top))
    if not as_json:
        typer.echo(f"wrote {folder / 'trace.json'} and its heat maps")
    if write_sites:
        _write_sites(Path(model), folder, tracer, as_json)


def _write_sites(model: Path, folder: Path, tracer: Any, quiet: bool) -> None:
    """Store the causal site as the model's default, or raise TraceInvalid saying why not."""
    from edits.model_card import write_default_sites
    from edits.tracing.causal import edit_site
    from edits.tracing.result import read_result
    from edits.tracing.run import pooled_verdict

    result, arrays = read_result(folder)
    found = pooled_verdict(result, arrays)
    if found is None or not found.is_causal:
        raise TraceInvalid(
            f"no site is written: {_why_not(found)}; trace more prompts and seeds, or name sites "
            "in manifests",
            param="write_sites",
        )
    site = edit_site(tracer.layout, found.site)
    write_default_sites(model, (str(site),))
    if not quiet:
        console.print(f"default site of {model.name}: {site}", markup=False)


def _why_not(found: Any) -> str:
    if found is None:
        return "no self_attn or mlp was traced"
    if not found.excludes_zero:
        return f"{found.site} leads, but its interval reaches zero"
    return f"{found.site} leads, but does not exclude the runner-up {found.runner_up}"
