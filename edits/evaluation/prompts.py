"""Prompts whose right answer is known, in templates that no edit was solved with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle

PLAIN = "photo"  # the style class of a picture without a style

OBJECT_TEMPLATES = (
    "a photo of a large {object} on a {colour} background",
    "{object} on {colour}",
    "an image of a nice {object} in front of a {colour} wall",
    "a picture of one {object}, {colour} background",
    "a photograph of a {object} standing on a plain {colour} background",
)

STYLE_TEMPLATES = (
    "a {object} in the style of {style} on a {colour} background",
    "a {object} on a {colour} background, {style}",
    "a picture of a {object} in {style} style with a {colour} background",
)


@dataclass(frozen=True)
class Probe:
    """A prompt, its seed, and the class that the judge should see for each attribute."""

    prompt: str
    seed: int
    wanted: dict[str, str] = field(hash=False)


def object_probes(
    objects: Sequence[str], colours: Sequence[str], *, each: int, seed: int
) -> Iterator[Probe]:
    """`each` plain pictures of every object; templates and colours take turns."""
    turns = zip(cycle(OBJECT_TEMPLATES), cycle(colours), strict=False)
    number = seed
    for _ in range(each):
        for thing, (template, colour) in zip(objects, turns, strict=False):
            text = template.format(object=thing, colour=colour)
            yield Probe(text, number, {"object": thing, "colour": colour, "style": PLAIN})
            number += 1


def style_probes(
    styles: Sequence[str],
    objects: Sequence[str],
    colours: Sequence[str],
    *,
    each: int,
    seed: int,
) -> Iterator[Probe]:
    """`each` pictures of every style; templates, objects and colours take turns."""
    turns = zip(cycle(STYLE_TEMPLATES), cycle(objects), cycle(colours), strict=False)
    number = seed
    for _ in range(each):
        for style, (template, thing, colour) in zip(styles, turns, strict=False):
            text = template.format(object=thing, style=style, colour=colour)
            yield Probe(text, number, {"object": thing, "colour": colour, "style": style})
            number += 1
