"""Settings of the fine-tuned peers, tried on one object and on one style, each removed alone.

With `--together N` the first N concepts are removed at once instead.

    python -m benchmarks.peers.grid esd --rates 3e-5,1e-4,3e-4
    python -m benchmarks.peers.grid ablation --rates 1e-4,3e-4,1e-3

The seeds are not those of the comparison: what is chosen here is not judged on the pictures that
chose it. Writes one JSON line for each setting and concept.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from itertools import product
from pathlib import Path
from time import perf_counter, process_time
from typing import Annotated, Any

import typer

from benchmarks.peers.cells import measure, probes_of
from benchmarks.peers.concept_ablation import AblationSettings, concept_ablation
from benchmarks.peers.esd import EsdSettings, esd
from benchmarks.peers.fine_tuning import Schedule
from benchmarks.peers.results import UNEDITED, figures
from benchmarks.peers.sets import removed
from edits.evaluation.drawing import Sampling
from edits.evaluation.report import load_judge
from edits.loading import load_pipeline
from edits.model_card import ModelDefaults
from edits.terminal import console

SEED = 171_000


def main(
    method: Annotated[str, typer.Argument(help="esd or ablation")],
    rates: Annotated[str, typer.Option(help="learning rates, comma separated")],
    updates: Annotated[str, typer.Option(help="numbers of updates, comma separated")] = "96",
    batch: int = 8,
    captions: Annotated[bool, typer.Option(help="esd: 24 captions, not the bare name")] = False,
    regularisation: Annotated[float, typer.Option(help="ablation: its weight")] = 1.0,
    eta: Annotated[float, typer.Option(help="esd: erasing strength")] = 1.0,
    together: Annotated[int, typer.Option(help="remove so many concepts at once")] = 0,
    most: Annotated[int, typer.Option(help="updates of one set, at most")] = 512,
    targets: int = 24,
    each: int = 2,
    model: str = "models/demo",
    out: Path = Path("out/peers-grid"),
) -> None:
    """Train, draw and judge every setting."""
    pipeline, judge = load_pipeline(model), load_judge(model)
    defaults = ModelDefaults.read(Path(model))
    sampling = Sampling(defaults.steps, defaults.guidance_scale)
    settings: Any
    edit: Callable[[Any, Any, Any], Any]
    out.mkdir(parents=True, exist_ok=True)
    for specs in [removed(together)] if together else [[spec] for spec in removed(2)]:
        probes = probes_of(judge, specs, targets=targets, each=each, seed=SEED)
        common: dict[str, Any] = {"count": len(specs)}
        before = measure(pipeline, judge, probes, sampling, method=UNEDITED, seconds=0.0, **common)
        for rate, number in product(rates.split(","), updates.split(",")):
            schedule = Schedule(int(number), most, batch, float(rate))
            if method == "esd":
                edit, settings = esd, EsdSettings(schedule, eta=eta, bare=not captions)
            elif method == "ablation":
                edit, settings = concept_ablation, AblationSettings(schedule, regularisation)
            else:
                raise typer.BadParameter(f"{method!r} has no settings to try: esd or ablation")
            started, worked = perf_counter(), process_time()
            edited = edit(pipeline, specs, settings)
            seconds, work = perf_counter() - started, process_time() - worked
            cell = measure(
                edited, judge, probes, sampling, method=method, seconds=seconds, **common
            )
            entry = {
                "concepts": [spec.concept for spec in specs],
                "settings": asdict(settings),
                "cpu_seconds": round(work, 1),
                **figures(cell, before),
            }
            with (out / "grid.jsonl").open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(entry)}\n")
            target, retained = entry["target"]["rate"], entry["retained"]["value"]
            console.print(
                f"{len(specs)} up to {specs[-1].concept}: {settings.summary}: target {target:.2f}, "
                f"retained {retained:.3f}, {seconds:.0f} s ({work:.0f} s of one core)"
            )


if __name__ == "__main__":
    typer.run(main)
