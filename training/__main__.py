"""Make the demo model from nothing: `python -m training`. Every stage resumes after a kill."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from training.art import fetch
from training.autoencoder import peak_signal_to_noise, train_autoencoder
from training.clip import train_clip
from training.export import export
from training.judge import accuracy, train_judge
from training.renders import make_renders
from training.tokenizer import train_tokenizer
from training.unet import encode_renders, train_unet

TRAIN_RENDERS, TEST_RENDERS = 80_000, 4_000


def main() -> None:
    """Run all stages into `--work`, then write the model to `--model`."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("out/training"))
    parser.add_argument("--model", type=Path, default=Path("models/demo"))
    options = parser.parse_args()
    work: Path = options.work
    torch.set_num_threads(2)

    packages = _timed("art", lambda: fetch(work / "art"))
    renders = _timed(
        "renders",
        lambda: make_renders(work, packages, name="train", count=TRAIN_RENDERS, seed=1),
    )
    held_out = make_renders(work, packages, name="test", count=TEST_RENDERS, seed=2)
    tokenizer = train_tokenizer(work / "tokenizer")

    encoder, scorer = _timed("clip", lambda: train_clip(renders, tokenizer, work))
    autoencoder = _timed("autoencoder", lambda: train_autoencoder(renders, work))
    judge = _timed("judge", lambda: train_judge(renders, work))
    latents = encode_renders(autoencoder, renders, work / "latents.pt")
    unet = _timed("unet", lambda: train_unet(renders, latents, tokenizer, encoder, work))

    figures = {
        "judge_on_held_out_renders": accuracy(judge, held_out),
        "autoencoder_psnr_db": round(peak_signal_to_noise(autoencoder, held_out), 2),
    }
    print(json.dumps(figures, indent=2))
    export(
        options.model,
        tokenizer=tokenizer,
        encoder=encoder,
        unet=unet,
        autoencoder=autoencoder,
        judge=judge,
        scorer=scorer,
    )


def _timed(name: str, stage: Callable[[], Any]) -> Any:
    started = time.monotonic()
    result = stage()
    print(f"{name}: {(time.monotonic() - started) / 60:.1f} min", flush=True)
    return result


if __name__ == "__main__":
    main()
