"""Pictures as the judge and CLIP see them; the pixels themselves are kept small."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image, Resampling
from torch import Tensor

from edits.evaluation.drawing import BATCH, Sampling, draw
from edits.evaluation.judge import Judge, Verdict, pixels_of
from edits.evaluation.prompts import Probe
from edits.evaluation.scorer import ClipScorer
from edits.evaluation.text_features import end_of_text

SHOWN_PIXELS = 128  # the longer side of a picture as a report shows it

Key = tuple[str, int]  # of a probe: its prompt and seed


@dataclass(frozen=True)
class Observation:
    """One picture: the judge's verdict, its unit embedding (projection,), and how it looks."""

    verdict: Verdict
    embedding: Tensor | None
    shown: Image


def observe(
    pipeline: Any,
    probes: Sequence[Probe],
    sampling: Sampling,
    judge: Judge,
    scorer: ClipScorer | None = None,
    *,
    progress: Callable[[int], None] = lambda _drawn: None,
) -> dict[Key, Observation]:
    """Draw every probe once and look at it; without a scorer there are no embeddings."""
    seen: dict[Key, Observation] = {}
    for start in range(0, len(probes), BATCH):
        part = probes[start : start + BATCH]
        pictures = draw(pipeline, part, sampling, progress=progress)
        verdicts = judge.look(pictures)
        embeddings = _embed(scorer, pictures) if scorer else [None] * len(part)
        for probe, picture, verdict, embedding in zip(
            part, pictures, verdicts, embeddings, strict=True
        ):
            seen[probe.key] = Observation(verdict, embedding, _small(picture))
    return seen


@torch.inference_mode()
def caption_embeddings(
    pipeline: Any, scorer: ClipScorer, captions: Sequence[str]
) -> Mapping[str, Tensor]:
    """Unit vectors (projection,) of captions, by the text encoder of `pipeline`."""
    texts = list(dict.fromkeys(captions))
    vectors = scorer.embed_hidden(end_of_text(pipeline, texts))
    return dict(zip(texts, vectors, strict=True))


@torch.inference_mode()
def _embed(scorer: ClipScorer, pictures: Sequence[Image]) -> list[Tensor]:
    return list(scorer.embed_pixels(pixels_of(pictures)))


def _small(picture: Image) -> Image:
    if max(picture.size) <= SHOWN_PIXELS:
        return picture.convert("RGB")
    small = picture.convert("RGB")
    small.thumbnail((SHOWN_PIXELS, SHOWN_PIXELS), Resampling.LANCZOS)
    return small
