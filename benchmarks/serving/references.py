"""diffusers' own pipeline in this process: what every image is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL.Image import Image

from benchmarks.serving.plan import Plan
from benchmarks.serving.workload import ImageRequest
from edits.loading import load_pipeline
from edits.terminal import progress

__all__ = ["InProcess", "References"]

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class References:
    """Pictures of requests: a file with `images`, and which of them is whose."""

    file: Path
    index: dict[ImageRequest, int]
    may_differ: int = 1  # by so much of 255 a channel

    @classmethod
    def write(
        cls, images: Mapping[ImageRequest, Pixels], file: Path, *, may_differ: int = 1
    ) -> Self:
        """Keep these images, uint8 of shape (rows, columns, 3)."""
        np.savez(file, images=np.stack(list(images.values())))
        return cls(file, {request: place for place, request in enumerate(images)}, may_differ)


class InProcess:
    """diffusers' pipeline as its documentation calls it."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._drawn: dict[ImageRequest, Pixels] = {}

    @cached_property
    def _pipeline(self) -> Any:
        plan = self._plan
        torch.set_num_threads(plan.threads)
        return load_pipeline(plan.model, device=plan.device, dtype=getattr(torch, plan.dtype))

    @torch.inference_mode()
    def draw(self, request: ImageRequest) -> Image:
        """One image, by one call."""
        image: Image = self._pipeline(
            request.prompt,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance_scale,
            generator=torch.Generator("cpu").manual_seed(request.seed),
        ).images[0]
        return image

    def references(self, requests: Sequence[ImageRequest], file: Path) -> References:
        """Draw every different request once, alone; those that were drawn before are kept."""
        different = list(dict.fromkeys(requests))
        missing = [request for request in different if request not in self._drawn]
        with progress("references", len(missing)) as bar:
            for request in missing:
                self._drawn[request] = np.asarray(self.draw(request).convert("RGB"))
                bar(1)
        drawn = {request: self._drawn[request] for request in different}
        return References.write(drawn, file, may_differ=self._plan.may_differ)
