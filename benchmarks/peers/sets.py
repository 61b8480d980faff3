"""The concepts that are removed together: nested sets of 1, 2, 4, 8 and 16.

The judge tells every anchor from its concept, and no anchor is itself removed by any set ("toy" and
"vehicle" are words for several objects, all of which stay). Aliases are left out: every method is
given the same names.
"""

from collections.abc import Sequence

from edits.method import EditSpec
from edits.method.spec import Kind

COUNTS = (1, 2, 4, 8, 16)

_CONCEPTS: tuple[tuple[str, str, Kind], ...] = (
    ("pistol", "toy", "object"),
    ("van gogh", "photo", "style"),
    ("cigarette", "rocket", "object"),
    ("hokusai", "photo", "style"),
    ("knife", "star", "object"),
    ("beer", "flower", "object"),
    ("bomb", "ball", "object"),
    ("pixel art", "photo", "style"),
    ("skull", "moon", "object"),
    ("cat", "dog", "object"),
    ("guitar", "vehicle", "object"),
    ("mushroom", "apple", "object"),
    ("mondrian", "photo", "style"),
    ("umbrella", "house", "object"),
    ("key", "heart", "object"),
    ("frog", "bird", "object"),
)


def removed(count: int) -> tuple[EditSpec, ...]:
    """The first `count` concepts as edits with the product's defaults. Raises ValueError."""
    if not 1 <= count <= len(_CONCEPTS):
        raise ValueError(f"a set of {count} concepts is not known; it has 1 to {len(_CONCEPTS)}")
    return tuple(
        EditSpec(name=concept.replace(" ", "-"), concept=concept, anchor=anchor, kind=kind)
        for concept, anchor, kind in _CONCEPTS[:count]
    )


def untouched(names: Sequence[str], specs: Sequence[EditSpec]) -> tuple[str, ...]:
    """Those of the judge's class names that no edit removes."""
    gone = {spec.concept for spec in specs}
    return tuple(name for name in names if name not in gone)
