"""Draw many prompts with one pipeline, in batches, each with its own seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image

from edits.evaluation.prompts import Probe
from edits.method.text import normalise

BATCH = 32
# Kernels are chosen by size: on the demo model a picture's bits do not depend on those that it is
# drawn with, if there is a multiple of eight.
_WHOLE_ROWS = 8


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn."""

    steps: int
    guidance_scale: float

    def document(self) -> dict[str, float]:
        """As JSON."""
        return {"steps": self.steps, "guidance_scale": self.guidance_scale}


@torch.inference_mode()
def draw(
    pipeline: Any,
    probes: Sequence[Probe],
    sampling: Sampling,
    *,
    batch: int = BATCH,
    progress: Callable[[int], None] = lambda _drawn: None,
) -> list[Image]:
    """One picture for each probe, by the pipeline's own loop from the normalised prompt on.

    For an edited model give the pipeline that runs it (`edits.method.with_components`).
    """
    pictures: list[Image] = []
    for start in range(0, len(probes), batch):
        part = list(probes[start : start + batch])
        rows = part + part[-1:] * (-len(part) % _WHOLE_ROWS)
        pictures += pipeline(
            prompt=[normalise(probe.prompt) for probe in rows],
            generator=[torch.Generator("cpu").manual_seed(probe.seed) for probe in rows],
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance_scale,
        ).images[: len(part)]
        progress(len(part))
    return pictures
