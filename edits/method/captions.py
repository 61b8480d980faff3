"""Captions with the concept, and the same captions with the anchor.

Under a causal mask the key at the last subject token depends on what stands before it only, so the
templates differ in their beginnings; the endings count for the positions behind the subject. The
four of the paper are the bare name and "A photo of", "An image of", "A picture of".
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from operator import ne

import inflect

from edits.method.spec import EditSpec, Kind
from edits.method.text import normalise

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
    "a photo of {ax} with a red background",
    "a table with {ax} and a tree",
    "{ax} and one more {x}",
    "my {x}'s color",
    "two {xs}",
    "a photo of {xs}",
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
    "{x}'s picture of a bird",
    "{ax} picture of a car",
    "a tree by {x} with a red background",
    "a house, {x}, {x}",
)

TEMPLATES: dict[Kind, tuple[str, ...]] = {
    "object": _THING_TEMPLATES,
    "style": _STYLE_TEMPLATES,
    "fact": _THING_TEMPLATES,
}

# No edit is solved with these: one half chooses the settings, the other half judges the choice.
_HELD_OUT_THINGS = (
    "a big {x} in the middle",
    "a picture of the {x} at home",
    "one {x} on a blue background",
    "an image of a nice {x}",
    "a photo of my {x} and a house",
    "some {xs}",
    "a cat beside {ax}",
    "{ax}, high quality",
)
_HELD_OUT_STYLES = (
    "an image of a fish in {x} style",
    "a car painted by {x}",
    "a small tree in the style of {x}",
    "{x} style house",
    "a picture by {x} of a dog",
    "a bird, {x}",
    "an apple as if by {x} on a blue background",
    "a picture of a star in the style of {x}, high quality",
)
HELD_OUT: dict[Kind, tuple[str, ...]] = {
    "object": _HELD_OUT_THINGS,
    "style": _HELD_OUT_STYLES,
    "fact": _HELD_OUT_THINGS,
}

PRESERVE_TEMPLATES = ("{x}", "a photo of {ax}", "a picture of {ax}")

_PLURALS = inflect.engine()
_WORD = re.compile(r"\w+")
_FIELD = re.compile(r"(\{x\}|\{ax\}|\{xs\})")


@dataclass(frozen=True)
class Caption:
    """A text and the characters [start, stop) in it where the subject's name last stands."""

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
    """Put `name` into every `{x}` of a template; `{ax}` adds the article, `{xs}` is the plural."""
    name = normalise(name)
    text, start, stop = "", 0, 0
    for part in _FIELD.split(template):
        if part in ("{x}", "{ax}", "{xs}"):
            text += _article(name) if part == "{ax}" else ""
            start = len(text)
            text += plural(name) if part == "{xs}" else name
            stop = len(text)
        else:
            text += part
    return Caption(text, start, stop)


def caption_pairs(spec: EditSpec) -> tuple[CaptionPair, ...]:
    """All pairs of an edit: every name of the concept in every template of its kind."""
    templates = PAPER_TEMPLATES if spec.parity else TEMPLATES[spec.kind]
    return pairs_in(templates, spec)


def pairs_in(templates: Sequence[str], spec: EditSpec) -> tuple[CaptionPair, ...]:
    """Every name of the concept in every template, beside the anchor in the same template."""
    anchors = [fill(template, spec.anchor) for template in templates]
    return tuple(
        CaptionPair(fill(template, name), anchor)
        for name in spec.names
        for template, anchor in zip(templates, anchors, strict=True)
    )


def preserve_captions(name: str) -> tuple[Caption, ...]:
    """The captions whose keys stand for a name that must not move."""
    return tuple(fill(template, name) for template in PRESERVE_TEMPLATES)


def frames() -> tuple[Caption, ...]:
    """Every caption that an edit or a preserved name runs through, around a name of one letter."""
    every = (*TEMPLATES.values(), PRESERVE_TEMPLATES)
    templates = dict.fromkeys(template for templates in every for template in templates)
    return tuple(fill(template, "x") for template in templates)


def mentions(text: str, name: str) -> bool:
    """Whether `name` stands in `text` as whole words, in any case and with any spacing."""
    words = r"\s+".join(re.escape(word) for word in normalise(name).casefold().split())
    searched = normalise(text).casefold()
    return bool(words) and re.search(rf"(?<!\w){words}(?!\w)", searched) is not None


def naming(texts: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """The texts that mention one of the names; as `mentions`, for thousands of both."""
    by_word: dict[str, list[str]] = {}
    for name in dict.fromkeys(map(normalise, names)):
        word = next(iter(_WORD.findall(name.casefold())), "")
        by_word.setdefault(word, []).append(name)
    return tuple(
        text
        for text in texts
        if any(
            mentions(text, name)
            for word in {"", *_WORD.findall(normalise(text).casefold())}
            for name in by_word.get(word, ())
        )
    )


def free_of(names: Iterable[str], templates: Iterable[str]) -> tuple[str, ...]:
    """The templates that mention none of the names in their own words."""
    own = {template: _FIELD.sub(" ", template) for template in templates}
    mentioned = set(naming(own.values(), names))
    return tuple(template for template, words in own.items() if words not in mentioned)


@cache
def plural(name: str) -> str:
    """`name` for several of it; of a phrase, its noun: "mugs of beer".

    One word is inflected and every other one stays; where the rules do otherwise, it is the last.
    """
    if not name.strip():
        return name
    try:
        several = str(_PLURALS.plural_noun(name))
    except Exception:  # noqa: BLE001 - its rules raise whatever they stumble over in a title
        several = ""
    words, inflected = name.split(), several.split()
    is_one_word = len(words) == len(inflected) and sum(map(ne, words, inflected)) <= 1
    # inflect reads a bar as an alternative, and answers one side of it, or both.
    return several if is_one_word and several.count("|") == name.count("|") else f"{name}s"


@cache
def ordinary_names() -> tuple[str, ...]:
    """Everyday objects, colours and styles: what is kept still for models that name nothing."""
    file = resources.files("edits.method") / "ordinary.txt"
    return tuple(file.read_text(encoding="utf-8").splitlines())


def _article(name: str) -> str:
    return "an " if name[:1].lower() in "aeiou" else "a "
