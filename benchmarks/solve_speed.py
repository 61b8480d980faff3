"""How long edits take at the size of Stable Diffusion 1.x, beside the released algorithm.

    python -m benchmarks.solve_speed                       # 1, 100 and 1,000 concepts
    python -m benchmarks.solve_speed --counts 1 --repeats 5

The text encoder is that of `benchmarks.sd1_size`. "Captions to swapped weight" is `Editor.check`,
`compose` and `apply`; what is done once per encoder (`Editor.warm`) is timed apart. The released
algorithm is written from its description: four caption pairs, each run whole through the encoder,
keys and values of the last subject token and of every later position, one outer product per row, an
inverse in float32.
"""

import json
import resource
import tempfile
import time
from itertools import islice, product
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from benchmarks import sd1_size
from edits.method import QUICKFIX, Editor, EditSpec, resolve
from edits.method.captions import PAPER_TEMPLATES, fill, ordinary_names
from training.captions import ADJECTIVES, EVERYDAY
from training.vocabulary import OBJECTS, STYLES

RIDGE = 0.01
ANCHORS = ("toy", "thing", "animal", "plant", "food", "vehicle", "object")


def made_pipeline(*, seed: int = 0) -> Any:
    """A text encoder of SD 1.x's size with random weights, and a tokenizer."""
    return SimpleNamespace(
        text_encoder=sd1_size.text_encoder(seed=seed), tokenizer=sd1_size.tokenizer()
    )


def concepts(count: int) -> list[EditSpec]:
    """`count` edits of different concepts: everyday words before an object or a style."""
    nouns = [name for name in (*OBJECTS, *STYLES) if name not in ANCHORS]
    words = product((*ADJECTIVES, *EVERYDAY), nouns)
    names = [f"{word} {noun}" for word, noun in islice(words, 7, 7 + count)]
    return [
        EditSpec(f"remove-{i:04d}", name, ANCHORS[i % len(ANCHORS)]) for i, name in enumerate(names)
    ]


@torch.no_grad()
def released(pipeline: Any, concept: str, anchor: str, *, dtype: torch.dtype) -> Tensor:
    """The edited weight (d_out, d_in), computed in `dtype`."""
    layer = resolve(pipeline.text_encoder, QUICKFIX)
    seen: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda _, read, wrote: seen.append((read[0], wrote)))
    keys, values = [], []
    for template in PAPER_TEMPLATES:
        texts = [fill(template, concept).text, fill(template, anchor).text]
        ids = pipeline.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
        pipeline.text_encoder(ids)
        read, wrote = seen.pop()
        last, anchor_last = (row.tolist().index(pipeline.tokenizer.eos_token_id) - 1 for row in ids)
        positions = ids.shape[1]
        for offset in range(positions - last):
            keys.append(read[0, last + offset])
            values.append(wrote[1, min(anchor_last + offset, positions - 1)])
    hook.remove()
    left = RIDGE * layer.weight.to(dtype)
    right = RIDGE * torch.eye(layer.in_features, dtype=dtype)
    for key, value in zip(keys, values, strict=True):
        key, value = key.to(dtype), value.to(dtype)  # noqa: PLW2901
        left = left + torch.outer(value, key)
        right = right + torch.outer(key, key)
    return left @ torch.inverse(right)


def swapped(editor: Editor, specs: list[EditSpec]) -> tuple[float, Any]:
    """Seconds from captions to a module with the edited weight, and the composition."""
    started = time.perf_counter()
    for spec in specs:
        editor.check(spec)
    composition = editor.compose(specs)
    editor.apply(composition)
    return time.perf_counter() - started, composition


def fresh(pipeline: Any, folder: Path | None = None) -> tuple[Editor, float]:
    """An editor that has captured what is captured once per encoder, and how long that took.

    With a folder it is stored there, or read from there.
    """
    editor = Editor(pipeline, ordinary=ordinary_names())
    started = time.perf_counter()
    editor.warm([QUICKFIX], folder=folder)
    return editor, time.perf_counter() - started


def one_concept(pipeline: Any, repeats: int) -> dict[str, Any]:
    """Ours and the released algorithm in turns, medians; and how far apart the weights are."""
    ours, theirs, same = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        editor, warm = fresh(pipeline, Path(folder))
        _, again = fresh(pipeline, Path(folder))
        stored = sum(file.stat().st_size for file in Path(folder).iterdir())
    for i in range(repeats):
        spec = concepts(repeats + 1)[i]
        ours.append(swapped(editor, [spec])[0])
        parity = EditSpec(
            spec.name, spec.concept, spec.anchor, tokens="last+pad", ridge=RIDGE, parity=True
        )
        seconds, composition = swapped(editor, [parity])
        same.append(seconds)
        started = time.perf_counter()
        single = released(pipeline, spec.concept, spec.anchor, dtype=torch.float32)
        theirs.append(time.perf_counter() - started)
    exact = released(pipeline, spec.concept, spec.anchor, dtype=torch.float64)
    weight = composition.weights[QUICKFIX].double()
    return {
        "repeats": repeats,
        "warm_seconds": round(warm, 2),
        "warm_from_file_seconds": round(again, 3),
        "file_mib": round(stored / 2**20, 1),
        "ours_seconds": _median(ours),
        "parity_seconds": _median(same),
        "released_seconds": _median(theirs),
        "times_faster": round(_median(theirs) / _median(ours), 1),
        "parity_times_faster": round(_median(theirs) / _median(same), 1),
        "parity_against_released_float64": _relative(weight, exact),
        "parity_against_released_float32": _relative(weight, single.double()),
    }


def many_concepts(pipeline: Any, count: int) -> dict[str, Any]:
    """All at once; then one withdrawn, one added, and all withdrawn."""
    editor, _ = fresh(pipeline)
    specs = concepts(count + 1)
    seconds, composition = swapped(editor, specs[:count])
    withdrawn, without = swapped(editor, specs[: count - 1])
    added, _ = swapped(editor, [*specs[: count - 1], specs[count]])
    again, _ = swapped(editor, specs[:count])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # of one editor
    other, _ = fresh(pipeline)
    pristine = resolve(pipeline.text_encoder, QUICKFIX).weight
    return {
        "concepts": count,
        "seconds": round(seconds, 2),
        "withdraw_one_seconds": round(withdrawn, 3),
        "add_one_seconds": round(added, 3),
        "same_again_seconds": round(again, 3),
        "withdrawn_equals_never_there": bool(
            torch.equal(
                without.weights[QUICKFIX], other.compose(specs[: count - 1]).weights[QUICKFIX]
            )
        ),
        "all_withdrawn_is_pristine": editor.apply(editor.compose([])) == {}
        and bool(torch.equal(resolve(pipeline.text_encoder, QUICKFIX).weight, pristine)),
        "mean_residual": round(
            sum(report.residual for report in composition.reports) / len(composition.reports), 4
        ),
        "peak_rss_gib": round(peak, 2),
    }


def _median(numbers: list[float]) -> float:
    return round(sorted(numbers)[len(numbers) // 2], 3)


def _relative(a: Tensor, b: Tensor) -> float:
    return float(f"{float((a - b).norm() / b.norm()):.2e}")


def main(
    counts: Annotated[str, typer.Option(help="Numbers of concepts, comma between.")] = "1,100,1000",
    repeats: int = 5,
    threads: int = 2,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Time edits at the size of Stable Diffusion 1.x."""
    torch.set_num_threads(threads)
    pipeline = made_pipeline()
    document: dict[str, Any] = {"device": "cpu", "threads": threads, "dtype": "float32"}
    for count in map(int, counts.split(",")):
        if count == 1:
            document["one"] = one_concept(pipeline, repeats)
        else:
            document[str(count)] = many_concepts(pipeline, count)
        print(json.dumps(document, indent=2), flush=True)
    if out is not None:
        out.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
