"""A pipeline that paints what a rule says, and a judge that reads it off: drawing with known truth.

A picture's colour is the number of its object, style and background. Everything else is real: the
text encoder and tokenizer are those of a tiny pipeline.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from PIL import Image

from edits.evaluation.judge import Verdict

from ..tiny_pipeline import build_pipeline

CLASSES = {
    "object": ("cat", "dog", "knife", "pistol", "robot", "star"),
    "colour": ("red", "blue"),
    "style": ("photo", "van gogh", "hokusai"),
}
HEADS = tuple(CLASSES)

Shown = dict[str, str]
Rule = Callable[[str, int, Shown], Shown]


def named(prompt: str) -> Shown:
    """What a prompt names, the first of each attribute; plain red cats where it names none."""
    shown = {"object": "cat", "colour": "red", "style": "photo"}
    for attribute, names in CLASSES.items():
        places = {n: prompt.find(n) for n in names if n != "photo" and n in prompt}
        if places:
            shown[attribute] = min(places, key=places.__getitem__)
    return shown


class PaintedPipeline(StableDiffusionPipeline):
    """Paints `rule(prompt, seed, named(prompt))`."""

    rule: Rule = staticmethod(lambda _prompt, _seed, shown: shown)
    drawn = 0

    def __call__(
        self, prompt: list[str], generator: list[torch.Generator], **_: Any
    ) -> StableDiffusionPipelineOutput:
        self.drawn += len(prompt)
        pictures = []
        for text, source in zip(prompt, generator, strict=True):
            shown = self.rule(text, source.initial_seed(), named(text))
            pixel = tuple(10 * CLASSES[head].index(shown[head]) for head in HEADS)
            pictures.append(Image.new("RGB", (64, 64), pixel))
        return StableDiffusionPipelineOutput(pictures, None)


class ReadingJudge:
    """Is never wrong."""

    classes = CLASSES

    def look(self, images: Sequence[Image.Image]) -> list[Verdict]:
        verdicts = []
        for image in images:
            pixel = image.getpixel((0, 0))
            classes = {h: CLASSES[h][v // 10] for h, v in zip(HEADS, pixel, strict=True)}
            shares = {h: {n: float(n == classes[h]) for n in CLASSES[h]} for h in HEADS}
            verdicts.append(Verdict(classes, shares))
        return verdicts


def painted(rule: Rule | None = None) -> PaintedPipeline:
    """A painted pipeline on a tiny one's components; the same components on every call."""
    pipeline = PaintedPipeline(**_TINY.components, requires_safety_checker=False)
    if rule:
        pipeline.rule = rule
    return pipeline


_TINY = build_pipeline()
