"""Pictures of exported edits, drawn by diffusers alone, beside those of the edited pipeline.

`python -m tests.export.compare --images 100 --seed 7000` measures all formats on the demo model.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edits.evaluation.judge import Judge
from edits.evaluation.prompts import object_probes, style_probes
from edits.export.artefact import read_artefact, write_artefact
from edits.export.edit_set import EditSet
from edits.export.folder import edited_pipeline, write_folder
from edits.export.lora import write_lora
from edits.manifests import catalog_entry
from edits.method import Editor, EditSpec, with_components
from edits.plan import choice_of, edit_spec
from edits.workbench import Workbench
from tests.export.diffusers_alone import draw

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "demo"
SCRIPT = Path(__file__).with_name("diffusers_alone.py")


def edit_set(editor: Editor, specs: Sequence[EditSpec]) -> tuple[EditSet, dict[str, Any]]:
    """What is exported, and the modules that the service would run."""
    composition = editor.compose(specs)
    names = [f"{spec.name}@1" for spec in specs]
    edits = EditSet.of(composition, names=names, base=editor.fingerprint)
    return edits, editor.apply(composition)


def drawn_alone(cases: Mapping[str, Any], folder: Path) -> dict[str, np.ndarray]:
    """The answers of `diffusers_alone.py`, run as a process of its own outside the repository."""
    asked, answers = folder / "request.json", folder / "answers.npz"
    asked.write_text(json.dumps(cases), encoding="utf-8")
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, str(SCRIPT), str(asked), str(answers)],
        cwd=folder,
        env=environment | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        check=True,
        capture_output=True,
    )
    with np.load(answers) as file:
        return dict(file)


def largest_difference(pictures: np.ndarray, others: np.ndarray) -> int:
    """In steps of 1/255."""
    return int(np.abs(pictures.astype(int) - others.astype(int)).max())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--images", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=7000)
    arguments.add_argument("--dtype", default="float32")
    arguments.add_argument("--edits", nargs="+", default=["remove-pistol", "remove-van-gogh"])
    arguments.add_argument("--tokens", help="last or last+pad, the rest by default; none: chosen")
    arguments.add_argument("--tolerance-bits", type=int, nargs="+", default=[14])
    given = arguments.parse_args()
    bench = Workbench.open(str(DEMO), dtype=getattr(torch, given.dtype))
    pipeline, defaults = bench.pipeline, bench.defaults
    manifests = [catalog_entry(name) for name in given.edits]
    specs = (
        [replace(edit_spec(m, defaults.presets), tokens=given.tokens) for m in manifests]
        if given.tokens
        else bench.gatekeeper.choose(manifests)
    )
    edits, modules = edit_set(bench.editor, specs)
    request = {
        "prompts": _prompts(specs, given.images, given.seed),
        "seed": given.seed,
        "steps": defaults.steps,
        "guidance_scale": defaults.guidance_scale,
        "batch": 4,
        "dtype": given.dtype,
    }
    served = draw(with_components(pipeline, modules), request)
    report: dict[str, Any] = {"dtype": given.dtype, "seed": given.seed}
    report["edits"] = {spec.name: choice_of(spec).model_dump() for spec in specs}
    report["edit moves"] = _figures(draw(pipeline, request), served)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pristine = folder / "pristine"
        pipeline.save_pretrained(pristine)
        write_folder(folder / "folder", pipeline, edits, model=str(DEMO))
        cases: dict[str, Any] = {"folder": {"folder": str(folder / "folder")}}
        sizes: dict[str, Any] = {}
        for spelling in ("peft", "kohya"):
            file = folder / f"{spelling}.safetensors"
            (site,) = write_lora(file, pipeline, edits, spelling=spelling)
            cases[spelling] = {"folder": str(pristine), "lora": str(file)}
            sizes[spelling] = {**site.document(), "KiB": file.stat().st_size / 1024}
        asked = {name: request | case for name, case in cases.items()}
        for format_name, pictures in drawn_alone(asked, folder).items():
            report[format_name] = _figures(pictures, served) | sizes.get(format_name, {})
        for bits in given.tolerance_bits:
            file = folder / "artefact.safetensors"
            (site,) = write_artefact(file, pipeline, edits, tolerance=2.0**-bits)
            weights = read_artefact(file, pipeline)
            again = edited_pipeline(
                pipeline, EditSet(edits.names, edits.base, edits.composition, weights)
            )
            report[f"safetensors 2^-{bits}"] = (
                _figures(draw(again, request), served)
                | site.document()
                | {"KiB": file.stat().st_size / 1024}
            )
    print(json.dumps(report, indent=2))  # noqa: T201 - the program's output


def _prompts(specs: Sequence[EditSpec], images: int, seed: int) -> list[str]:
    """Half of the pictures with a removed concept, half of everything, objects and styles."""
    judge = Judge.load(DEMO / "judge.safetensors")
    objects, colours = judge.classes["object"], judge.classes["colour"]
    styles = judge.classes["style"][1:]
    removed = [spec.concept for spec in specs]
    gone = [
        *object_probes([n for n in objects if n in removed], colours, each=images, seed=seed),
        *style_probes(
            [n for n in styles if n in removed], objects, colours, each=images, seed=seed
        ),
    ]
    other = [
        *object_probes(objects, colours, each=images, seed=seed),
        *style_probes(styles, objects, colours, each=images, seed=seed),
    ]
    half = images // 2
    chosen = _spread(gone, half) + _spread(other, images - half)
    return [probe.prompt for probe in chosen]


def _spread(probes: Sequence[Any], count: int) -> list[Any]:
    """`count` of them at even distances."""
    return [probes[place * len(probes) // count] for place in range(count)]


def _figures(pictures: np.ndarray, served: np.ndarray) -> dict[str, Any]:
    steps = np.abs(pictures.astype(int) - served.astype(int))
    return {
        "images": len(served),
        "largest difference": int(steps.max()),
        "images above 1": int((steps.max(axis=(1, 2, 3)) > 1).sum()),
        "values above 1": int((steps > 1).sum()),
        "values of 1": int((steps == 1).sum()),
    }


if __name__ == "__main__":
    main()
