"""Train the judge on renders only, half of them degraded as a decoder would."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from edits.evaluation.judge import Judge
from training.renders import Renders
from training.stage import Plan, train
from training.vocabulary import COLOURS, OBJECTS, STYLES, VIEWPOINTS

CLASSES = {"object": OBJECTS, "colour": tuple(COLOURS), "style": STYLES, "viewpoint": VIEWPOINTS}
PLAN = Plan("judge", steps=2400, learning_rate=3e-3, warmup=100, decay=0.995, weight_decay=0.02)
BATCH, SEED = 128, 13


def degrade(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Blur, shift, noise and colour cast on half of the batch; (b, 3, 64, 64) in and out."""
    half = len(pixels) // 2
    worn = pixels[:half]
    blurred = functional.interpolate(worn, size=40, mode="bilinear", antialias=True)
    blurred = functional.interpolate(blurred, size=pixels.shape[-1], mode="bilinear")
    share = torch.rand((half, 1, 1, 1), generator=generator)
    worn = worn.lerp(blurred, share)
    noise = torch.randn(worn.shape, generator=generator)
    coarse = torch.randn((half, 3, 16, 16), generator=generator)
    coarse = functional.interpolate(coarse, size=pixels.shape[-1], mode="bilinear")
    level = torch.rand((half, 1, 1, 1), generator=generator)
    worn = worn + level * (0.08 * noise + 0.12 * coarse)
    cast = torch.randn((half, 3, 1, 1), generator=generator) * 0.04
    dy, dx = torch.randint(-2, 3, (2,), generator=generator).tolist()
    worn = (worn + cast).roll((dy, dx), dims=(2, 3)).clamp(-1, 1)
    return torch.cat([worn, pixels[half:]])


def train_judge(renders: Renders, folder: Path) -> Judge:
    """Train all heads together; returns the judge with average weights."""
    torch.manual_seed(SEED)
    judge = Judge(CLASSES)

    def loss_at(step: int) -> Tensor:
        indices = renders.batch(step, BATCH, SEED)
        generator = torch.Generator().manual_seed(SEED * 1_000_003 + step)
        order = torch.randperm(BATCH, generator=generator)
        pixels = degrade(renders.pixels(indices)[order], generator)
        labels = torch.from_numpy(renders.labels[indices]).long()[order]
        logits = judge(pixels)
        losses = [
            functional.cross_entropy(logits[name], labels[:, i], label_smoothing=0.02)
            for i, name in enumerate(CLASSES)
        ]
        return torch.stack(losses).sum()

    train(PLAN, {"judge": judge}, loss_at, folder)
    return judge


@torch.no_grad()
def accuracy(judge: Judge, renders: Renders) -> dict[str, float]:
    """Share of renders judged right, per attribute."""
    right = dict.fromkeys(CLASSES, 0)
    for start in range(0, len(renders), 500):
        stop = min(start + 500, len(renders))
        logits = judge(renders.pixels(torch.arange(start, stop).numpy()))
        labels = torch.from_numpy(renders.labels[start:stop]).long()
        for i, name in enumerate(CLASSES):
            right[name] += int((logits[name].argmax(-1) == labels[:, i]).sum())
    return {name: count / len(renders) for name, count in right.items()}
