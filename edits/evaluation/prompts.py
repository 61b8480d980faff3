"""Prompts whose right answer is known, in templates that no edit was solved with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edits.method.captions import plural

PLAIN = "photo"  # the style class of a picture without a style

OBJECT_TEMPLATES = (
    "a photo of a large {x} on {a_colour} background",
    "{x} on {colour}",
    "an image of a nice {x} in front of {a_colour} wall",
    "a picture of one {x}, {colour} background",
    "a photograph of {ax} standing on a plain {colour} background",
)

STYLE_TEMPLATES = (
    "{a_thing} in the style of {x} on {a_colour} background",
    "{a_thing} on {a_colour} background, {x}",
    "a picture of {a_thing} in {x} style with {a_colour} background",
)

_DETERMINERS = frozenset(
    ("the", "a", "an", "this", "that", "these", "those", "one", "some", "any", "every", "my")
) | {"your", "his", "her", "its", "our", "their"}


@dataclass(frozen=True)
class Probe:
    """A prompt, its seed, and the class that the judge should see for each attribute.

    CLIPScore compares the picture with `caption` (none: the prompt) and, where there is one, with
    `anchor_caption`.
    """

    prompt: str
    seed: int
    wanted: Mapping[str, str] = field(hash=False)
    caption: str = field(default="", hash=False)
    anchor_caption: str = field(default="", hash=False)

    @property
    def key(self) -> tuple[str, int]:
        """What decides the picture: probes with the same key are one picture."""
        return self.prompt, self.seed


def fill(template: str, name: str, *, colour: str, thing: str = "") -> str:
    """A template with its names: `{x}`, `{ax}` with article, `{xs}` plural; `{thing}`, `{colour}`.

    `{a_thing}` and `{a_colour}` carry the article too.
    """
    return template.format(
        x=name,
        ax=with_article(name),
        xs=plural(name),
        thing=thing,
        a_thing=with_article(thing) if thing else "",
        colour=colour,
        a_colour=with_article(colour),
    )


def with_article(name: str) -> str:
    """`name` with its indefinite article, and as it is where it brings a determiner: "the king"."""
    first = name.split(maxsplit=1)[0].casefold() if name.split() else ""
    if first in _DETERMINERS or first.endswith(("'s", "\N{RIGHT SINGLE QUOTATION MARK}s")):
        return name
    return f"{'an' if name[:1].casefold() in 'aeiou' else 'a'} {name}"


def object_probes(
    objects: Sequence[str],
    colours: Sequence[str],
    *,
    each: int,
    seed: int,
    templates: Sequence[str] = OBJECT_TEMPLATES,
) -> Iterator[Probe]:
    """`each` plain pictures of every object; an object meets templates and colours in turn."""
    for turn in range(each):
        for place, thing in enumerate(objects):
            template, colour = _in_turn(turn + place, templates, colours)
            text = fill(template, thing, colour=colour)
            number = seed + turn * len(objects) + place
            yield Probe(text, number, {"object": thing, "colour": colour, "style": PLAIN})


def style_probes(
    styles: Sequence[str],
    objects: Sequence[str],
    colours: Sequence[str],
    *,
    each: int,
    seed: int,
    templates: Sequence[str] = STYLE_TEMPLATES,
) -> Iterator[Probe]:
    """`each` pictures of every style; a style meets templates, objects and colours in turn."""
    for turn in range(each):
        for place, style in enumerate(styles):
            template, thing, colour = _in_turn(turn + place, templates, objects, colours)
            text = fill(template, style, colour=colour, thing=thing)
            number = seed + turn * len(styles) + place
            yield Probe(text, number, {"object": thing, "colour": colour, "style": style})


def _in_turn(number: int, *cycles: Sequence[str]) -> tuple[str, ...]:
    return tuple(values[number % len(values)] for values in cycles)
