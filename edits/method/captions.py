"""Captions with the concept, and the same captions with the anchor.

Under a causal mask the key at the last subject token depends on what stands before it only, so the
templates differ in their beginnings. The four of the paper are the bare name and "A photo of",
"An image of", "A picture of".
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

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

    @property
    def subject(self) -> str:
        """The subject's name as it stands in the text."""
        return self.text[self.start : self.stop]


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


def preserve_captions(name: str) -> tuple[Caption, ...]:
    """The captions whose keys stand for a name that must not move."""
    return tuple(fill(template, name) for template in PRESERVE_TEMPLATES)


def mentions(text: str, name: str) -> bool:
    """Whether `name` stands in `text` as whole words, in any case and with any spacing."""
    words = r"\s+".join(re.escape(word) for word in name.casefold().split())
    return bool(words) and re.search(rf"(?<!\w){words}(?!\w)", text.casefold()) is not None


@cache
def ordinary_names() -> tuple[str, ...]:
    """Everyday objects, colours and styles: what is kept still for models that name nothing."""
    file = resources.files("edits.method") / "ordinary.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())
