"""Remove 1 to 16 concepts together with every method, on one model, and judge the same pictures.

    python -m benchmarks.peers --out out/peers

Writes `cells.jsonl` cell by cell, so that the same command goes on where it was stopped, and in the
end `peers.json`, `peers.md` and `peers.png`.
"""

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from benchmarks.peers.cells import measure, probes_of
from benchmarks.peers.journal import Journal
from benchmarks.peers.methods import Method, method_table
from benchmarks.peers.results import UNEDITED, document, markdown, write
from benchmarks.peers.sets import COUNTS, removed
from edits.evaluation.drawing import Sampling
from edits.evaluation.report import load_judge
from edits.loading import load_pipeline
from edits.method.fingerprint import module_digest
from edits.model_card import ModelDefaults
from edits.terminal import console, progress


def main(
    methods: Annotated[str, typer.Option(help="names, comma separated; all if left out")] = "",
    counts: Annotated[str, typer.Option(help="numbers of concepts, comma separated")] = ",".join(
        map(str, COUNTS)
    ),
    targets: Annotated[int, typer.Option(help="pictures of removed concepts, at least")] = 112,
    each: Annotated[int, typer.Option(help="pictures of every other object and style")] = 8,
    seed: int = 91_000,
    model: str = "models/demo",
    out: Path = Path("out/peers"),
) -> None:
    """Edit, draw, judge and compare."""
    pipeline, judge = load_pipeline(model), load_judge(model)
    defaults = ModelDefaults.read(Path(model))
    sampling = Sampling(defaults.steps, defaults.guidance_scale)
    table = _chosen(method_table(defaults.ordinary_captions), methods)
    numbers = sorted({int(text) for text in counts.split(",")})
    options: dict[str, Any] = {
        "model": Path(model).name,
        "text_encoder": module_digest(pipeline.text_encoder),
        "unet": module_digest(pipeline.unet),
        "targets": targets,
        "each": each,
        "seed": seed,
        **sampling.document(),
    }
    out.mkdir(parents=True, exist_ok=True)
    journal = Journal(out / "cells.jsonl", options)
    sets = {n: probes_of(judge, removed(n), targets=targets, each=each, seed=seed) for n in numbers}
    todo = [
        (method, count)
        for count in numbers
        for method in table.values()
        if journal.find(method.name, method.settings, count) is None
    ]
    with progress("pictures", sum(len(sets[count].all) for _, count in todo)) as bar:
        for method, count in todo:
            console.print(f"{method.name}, {count} removed: editing")
            started = perf_counter()
            edited = method.edit(pipeline, removed(count))
            seconds = perf_counter() - started
            console.print(f"{method.name}, {count} removed: edited in {seconds:.2f} s, drawing")
            cell = measure(
                edited,
                judge,
                sets[count],
                sampling,
                method=method.name,
                count=count,
                seconds=seconds,
                progress=bar,
            )
            journal.add(cell, method.settings)
    done = (journal.find(m.name, m.settings, n) for n in numbers for m in table.values())
    cells = [cell for cell in done if cell is not None]
    found = document(cells, table, options)
    write(found, out)
    print(markdown(found), end="")


def _chosen(table: dict[str, Method], names: str) -> dict[str, Method]:
    """The named methods, and always the unedited model. Raises typer.BadParameter."""
    wanted: Sequence[str] = [name for name in names.split(",") if name] or list(table)
    if unknown := [name for name in wanted if name not in table]:
        raise typer.BadParameter(f"{', '.join(unknown)}; known methods: {', '.join(table)}")
    return {name: method for name, method in table.items() if name in {UNEDITED, *wanted}}


if __name__ == "__main__":
    typer.run(main)
