"""Draw many prompts with one pipeline, in batches, each with its own seed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import nn

from edits.evaluation.prompts import Probe


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
    text_encoder: nn.Module,
    probes: Sequence[Probe],
    sampling: Sampling,
    *,
    batch: int = 8,
    progress: Callable[[int], None] = lambda _drawn: None,
) -> list[Image]:
    """One picture for each probe, by diffusers' own loop with `text_encoder`'s embeddings."""
    pictures: list[Image] = []
    negative = _embed(pipeline, text_encoder, [""])
    for start in range(0, len(probes), batch):
        part = probes[start : start + batch]
        pictures += pipeline(
            prompt_embeds=_embed(pipeline, text_encoder, [probe.prompt for probe in part]),
            negative_prompt_embeds=negative.expand(len(part), -1, -1),
            generator=[torch.Generator("cpu").manual_seed(probe.seed) for probe in part],
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance_scale,
        ).images
        progress(len(part))
    return pictures


def _embed(pipeline: Any, text_encoder: nn.Module, prompts: Sequence[str]) -> torch.Tensor:
    tokens = pipeline.tokenizer(list(prompts), padding="max_length", return_tensors="pt")
    hidden: torch.Tensor = text_encoder(tokens.input_ids.to(pipeline.device)).last_hidden_state
    return hidden
