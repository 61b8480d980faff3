"""How far an edit moves the empty prompt, the unconditional branch of guidance."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from edits.evaluation.drawing import Sampling, draw
from edits.evaluation.prompts import Probe
from edits.method.components import Components

PICTURES = 8


@dataclass(frozen=True)
class EmptyPromptDrift:
    """The embedding of "" in two pipelines, and pictures of it.

    max_abs: largest difference of a number. relative: norm of the difference over the pristine
    norm. identical: of `pictures`, those with the same pixels. max_pixel: largest difference of a
    colour value, 0 to 255; it moves too if an edit acts behind the text encoder.
    """

    max_abs: float
    relative: float
    pictures: int
    identical: int
    max_pixel: int

    def document(self) -> dict[str, Any]:
        """As JSON; nothing is rounded."""
        return {
            "max_abs": self.max_abs,
            "relative": self.relative,
            "pictures": {"n": self.pictures, "identical": self.identical, "max": self.max_pixel},
        }


def empty_prompt_drift(
    pipeline_before: Any, pipeline_after: Any, sampling: Sampling, *, seed: int
) -> EmptyPromptDrift:
    """Embed "" with both pipelines, and draw it `PICTURES` times with each."""
    old, new = (Components(p).embed([""]) for p in (pipeline_before, pipeline_after))
    probes = [Probe("", seed + number, {}) for number in range(PICTURES)]
    before, after = (draw(p, probes, sampling) for p in (pipeline_before, pipeline_after))
    pixels = [
        int(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)).max())
        for a, b in zip(before, after, strict=True)
    ]
    return EmptyPromptDrift(
        max_abs=float((new - old).abs().max()),
        relative=float((new - old).norm() / old.norm()),
        pictures=len(pixels),
        identical=pixels.count(0),
        max_pixel=max(pixels),
    )
