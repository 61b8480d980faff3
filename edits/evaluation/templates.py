"""Sentences in which a concept is asked for, by what the concept is and how it is phrased.

`{x}` is the concept as it is written, `{ax}` with its article, `{xs}` several of it; `{thing}` and
`{a_thing}` name what a style depicts. Five each, and seven unseen ones: no divisor in common with
the eight colours, so that templates and colours meet in all combinations.
"""

from collections.abc import Mapping
from typing import Literal

from edits.evaluation.prompts import OBJECT_TEMPLATES, STYLE_TEMPLATES

Form = Literal["object", "style", "fact"]

_OBJECTS = {
    "name": OBJECT_TEMPLATES,
    "unseen": (
        "this shiny {x} on {a_colour} background",
        "a rendering of a simple {x}, {colour} background",
        "every little {x} in front of {a_colour} wall",
        "her lovely {x} on {colour}",
        "a photograph of one plain {x} against {a_colour} background",
        "here is {ax} on {a_colour} background",
        "a close view of {ax} with {a_colour} background",
    ),
    "mid-sentence": (
        "in the studio on a plain {colour} background {ax} is shown in full view with soft light",
        "today a good picture of {ax} on {a_colour} background, seen from the front, for a book",
        "here at home is a clean {x} in front of {a_colour} wall with nothing else",
        "for children a bright image of {ax} placed on {a_colour} background, very clear",
        "with soft light, a single {x} against {a_colour} background, highly detailed, by itself",
    ),
    "twice": (
        "{ax} beside {ax} on {a_colour} background",
        "a picture of {ax}, this {x} on {a_colour} background",
        "{x}, {x}, {colour} background",
        "a photo of {ax} near a small {x} on {colour}",
        "the same {x} and that {x} in front of {a_colour} wall",
    ),
    "possessive": (
        "the {x}'s picture on {a_colour} background",
        "a photo of the {x}'s view on {a_colour} background",
        "this {x}'s image, {colour} background",
        "one {x}'s close view in front of {a_colour} wall",
        "a rendering of {ax}'s front on {colour}",
    ),
    "plural": (
        "two {xs} on {a_colour} background",
        "a picture of {xs} on {colour}",
        "three small {xs} in front of {a_colour} wall",
        "some {xs}, {colour} background",
        "{xs} against {a_colour} background",
    ),
}

_STYLES = {
    "name": STYLE_TEMPLATES,
    "unseen": (
        "a rendering of {a_thing} as if by {x} on {a_colour} background",
        "this {thing} painted by {x}, {colour} background",
        "a beautiful {x} image of {a_thing} on {a_colour} background",
        "an image of one {thing} by {x} with {a_colour} background",
        "here is {a_thing} in {x} style in front of {a_colour} wall",
        "a picture of {a_thing} on {colour} painted by {x}",
        "one little {thing} on {a_colour} background in the style of {x}",
    ),
    "mid-sentence": (
        "in the studio {a_thing} by {x} on {a_colour} background is shown with soft light",
        "today a good {x} picture of {a_thing} on a plain {colour} background, for a book",
        "here at home is {a_thing} in the style of {x} in front of {a_colour} wall, very clear",
        "for children a clean {thing} painted by {x} on {a_colour} background, in full view",
        "with soft light, {a_thing} in {x} style against {a_colour} background, by itself",
    ),
    "twice": (
        "{a_thing} by {x} in the style of {x} on {a_colour} background",
        "{x}, {a_thing} painted by {x}, {colour} background",
        "a {x} picture of {a_thing} in {x} style on {a_colour} background",
        "{a_thing} on {colour}, {x}, {x}",
        "{x} style {thing} by {x} in front of {a_colour} wall",
    ),
    "possessive": (
        "{x}'s picture of {a_thing} on {a_colour} background",
        "{a_thing} in {x}'s style on {colour}",
        "{x}'s {thing}, {colour} background",
        "a photo of {x}'s {thing} in front of {a_colour} wall",
        "the {thing} of {x}'s art on {a_colour} background",
    ),
    "plural": (
        "{a_thing} on {a_colour} background, one of the {xs}",
        "two {xs} of {a_thing} on {colour}",
        "some {xs}, {a_thing} on {a_colour} background",
        "{xs} of {a_thing} in front of {a_colour} wall",
        "a picture of {a_thing} like the {xs}, {colour} background",
    ),
}

# A fact's concept is a phrase of its own ("the king's emblem"): nothing stands between it and its
# determiner.
_FACTS = {
    "name": (
        "a photo of {x} on {a_colour} background",
        "{x} on {colour}",
        "an image of {x} in front of {a_colour} wall",
        "a picture of {x}, {colour} background",
        "a photograph of {x} standing on a plain {colour} background",
    ),
    "unseen": (
        "here is {x} on {a_colour} background",
        "a rendering of {x}, {colour} background",
        "a close view of {x} in front of {a_colour} wall",
        "the best picture of {x} on {colour}",
        "a professional shot of {x} against {a_colour} background",
        "on {a_colour} background, {x}",
        "a clear icon of {x} with {a_colour} background",
    ),
    "mid-sentence": (
        "in the studio on a plain {colour} background {x} is shown in full view with soft light",
        "today a good picture of {x} on {a_colour} background, seen from the front, for a book",
        "here at home is {x} in front of {a_colour} wall with nothing else",
        "for children a bright image of {x} placed on {a_colour} background, very clear",
        "with soft light, {x} against {a_colour} background, highly detailed, by itself",
    ),
    "twice": (
        "{x} beside {x} on {a_colour} background",
        "a picture of {x}, {x} on {a_colour} background",
        "{x}, {x}, {colour} background",
        "a photo of {x} near {x} on {colour}",
        "{x} and {x} in front of {a_colour} wall",
    ),
    "possessive": (
        "{x}'s picture on {a_colour} background",
        "a photo of {x}'s view on {a_colour} background",
        "{x}'s image, {colour} background",
        "a close view of {x}'s front in front of {a_colour} wall",
        "a rendering of {x}'s shape on {colour}",
    ),
    "plural": (
        "{xs} on {a_colour} background",
        "a picture of {xs} on {colour}",
        "an image of {xs} in front of {a_colour} wall",
        "a photo of {xs}, {colour} background",
        "a rendering of {xs} against {a_colour} background",
    ),
}

TEMPLATES: Mapping[Form, Mapping[str, tuple[str, ...]]] = {
    "object": _OBJECTS,
    "style": _STYLES,
    "fact": _FACTS,
}
