"""The judge's own error, measured on renders that no network was trained on.

    python -m training.held_out

writes `judge.json` beside the judge. Three views of the same 4,000 renders are judged: as painted;
degraded as half of the judge's training pictures are; and through the model's autoencoder, which
every drawn picture passes as well.
"""

import argparse
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from edits.evaluation.judge import Judge
from edits.evaluation.judge_card import FILE_NAME
from edits.evaluation.report import JUDGE_FILE
from training.art import fetch
from training.judge import CLASSES, degrade
from training.renders import Renders, make_renders

COUNT, SEED, BATCH = 4000, 2, 100

View = Callable[[Tensor, int], Tensor]


@torch.inference_mode()
def errors(judge: Judge, renders: Renders, view: View) -> dict[str, Any]:
    """For each attribute the renders judged wrong, in all and by true class.

    `view` takes pixels (b, 3, 64, 64) in [-1, 1] and the batch's number, and gives what is judged.
    """
    wrong: dict[str, list[int]] = {name: [] for name in CLASSES}
    for number, start in enumerate(range(0, len(renders), BATCH)):
        rows = torch.arange(start, min(start + BATCH, len(renders))).numpy()
        labels = torch.from_numpy(renders.labels[rows]).long()
        logits = judge(view(renders.pixels(rows), number))
        for column, name in enumerate(CLASSES):
            misses = logits[name].argmax(-1) != labels[:, column]
            wrong[name] += labels[misses, column].tolist()
    return {
        name: {
            "errors": len(wrong[name]),
            "n": len(renders),
            "by_class": {
                label: {
                    "errors": wrong[name].count(index),
                    "n": int((renders.labels[:, column] == index).sum()),
                }
                for index, label in enumerate(labels_of)
            },
        }
        for column, (name, labels_of) in enumerate(CLASSES.items())
    }


def degraded(pixels: Tensor, number: int) -> Tensor:
    """Every picture degraded: `degrade` wears out one half of what it is given."""
    generator = torch.Generator().manual_seed(SEED * 1_000_003 + number)
    return degrade(torch.cat([pixels, pixels]), generator)[: len(pixels)]


def through(autoencoder: AutoencoderTiny) -> View:
    """Encoded, decoded, and rounded to the 256 levels of a picture."""

    def view(pixels: Tensor, _number: int) -> Tensor:
        decoded: Tensor = autoencoder.decode(autoencoder.encode(pixels).latents).sample
        return ((decoded.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1

    return view


def main() -> None:
    """Measure the judge of `--model` and write its card."""
    parser = argparse.ArgumentParser(prog="python -m training.held_out", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("out/training"))
    parser.add_argument("--model", type=Path, default=Path("models/demo"))
    options = parser.parse_args()
    packages = fetch(options.work / "art")
    renders = make_renders(options.work, packages, name="test", count=COUNT, seed=SEED)
    judge = Judge.load(options.model / JUDGE_FILE)
    autoencoder = AutoencoderTiny.from_pretrained(options.model / "vae", dtype=torch.float32)
    views = {
        "as painted": errors(judge, renders, lambda pixels, _number: pixels),
        "degraded": errors(judge, renders, degraded),
        "through the autoencoder": errors(judge, renders, through(autoencoder.eval())),
    }
    card = {
        "command": "python -m training.held_out",
        "judge": "sha256:" + hashlib.sha256((options.model / JUDGE_FILE).read_bytes()).hexdigest(),
        "count": len(renders),
        "seed": SEED,
        "views": views,
    }
    (options.model / FILE_NAME).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    for view, attributes in views.items():
        print(view, {name: f"{part['errors']} of {part['n']}" for name, part in attributes.items()})


if __name__ == "__main__":
    main()
