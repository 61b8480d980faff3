"""Captions with the concept, and the same captions with the anchor.

Under a causal mask the key at the last subject token depends on what stands before it only, so the
templates differ in their beginnings. The four of the paper are the bare name and "A photo of",
"An image of", "A picture of".
"""

import re
from dataclasses import dataclass

from edits.method.spec import EditSpec, Kind

PAPER_TEMPLATES = ("{x}", "a photo of {x}", "an image of {x}", "a picture of {x}")

_THING_TEMPLATES = (
    *PAPER_TEMPLATES,
    "{ax}",
    "a photo of {ax}",
    "an image of {ax}",
    "a picture of {ax}",
    "a painting of {ax}",
    "a small {x}",
    "a photo of a big {x}",
    "a drawing of {ax}",
    "the {x}",
)

_STYLE_TEMPLATES = (
    *PAPER_TEMPLATES,
    "a painting by {x}",
    "{ax}",
    "a painting in the style of {x}",
    "a photo in the style of {x}",
    "a cat in the style of {x}",
    "a picture of a house in the style of {x}",
    "a tree by {x}",
    "a dog in {x}",
)

TEMPLATES: dict[Kind, tuple[str, ...]] = {
    "object": _THING_TEMPLATES,
    "style": _STYLE_TEMPLATES,
    "fact": _THING_TEMPLATES,
}

PRESERVE_TEMPLATES = ("{x}", "a photo of {ax}", "a picture of {ax}")


@dataclass(frozen=True)
class Caption:
    """A text and the characters [start, stop) in it where the subject's name stands."""

    text: str
    start: int
    stop: int


@dataclass(frozen=True)
class CaptionPair:
    """A caption with the concept and the same caption with the anchor."""

    concept: Caption
    anchor: Caption


def fill(template: str, name: str) -> Caption:
    """Put `name` into a template; `{ax}` adds the indefinite article."""
    article = "an " if name[:1].lower() in "aeiou" else "a "
    before, _, after = template.partition("{ax}" if "{ax}" in template else "{x}")
    if "{ax}" in template:
        before += article
    return Caption(f"{before}{name}{after}", len(before), len(before) + len(name))


def caption_pairs(spec: EditSpec) -> tuple[CaptionPair, ...]:
    """All pairs of an edit: every name of the concept in every template of its kind."""
    templates = PAPER_TEMPLATES if spec.parity else TEMPLATES[spec.kind]
    return tuple(
        CaptionPair(fill(template, name), fill(template, spec.anchor))
        for name in spec.names
        for template in templates
    )


def mentions(text: str, name: str) -> bool:
    """Whether `name` stands in `text` as whole words, in any case."""
    return re.search(rf"(?<!\w){re.escape(name.casefold())}(?!\w)", text.casefold()) is not None
