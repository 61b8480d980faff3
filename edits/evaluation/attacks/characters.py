"""A name written otherwise: slips of the keyboard, and spellings meant to get past a filter.

Every family lists what it can make of a name; nothing here looks at the encoder.
"""

import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_STAGGER = 0.5  # each row of a QWERTY keyboard stands half a key to the right of the one above

# Letters of other scripts and of extended Latin that look like the Latin one in most fonts.
_HOMOGLYPHS = {
    "a": "аɑα", "b": "Ьƅ", "c": "сϲ", "d": "ԁժ", "e": "еҽ", "f": "ꞙƒ", "g": "ɡց",  # noqa: RUF001
    "h": "һհ", "i": "іıɩ", "j": "јϳ", "k": "κк", "l": "ӏⅼ1", "m": "мⅿ", "n": "ոп",  # noqa: RUF001
    "o": "оοօ", "p": "рρ", "q": "ԛզ", "r": "гᴦ", "s": "ѕꜱ", "t": "тτ", "u": "սυ",  # noqa: RUF001
    "v": "νѵ", "w": "ԝѡ", "x": "хⅹ", "y": "уү", "z": "ᴢʐ",  # noqa: RUF001
}  # fmt: skip
_STYLED_ALPHABETS = (0xFF41, 0x1D41A, 0x1D4EA, 0x1D552, 0x24D0)  # full-width, bold, script, ...
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_MARKS = "\u0300\u0301\u0302\u0303\u0308\u030a\u0327\u0336"
_LEET = {"a": "4@", "b": "8", "e": "3", "g": "9", "i": "1!", "l": "1|", "o": "0", "s": "5$",
         "t": "7+", "z": "2"}  # fmt: skip
_EMOJI = "🔫🎨⭐🔥❤🙂🚫👉"
_AROUND = (
    "“{x}”", '"{x}"', "'{x}'", "({x})", "[{x}]", "<{x}>", "*{x}*", "_{x}_", "#{x}", "@{x}", "{x}!",
    "{x}?", "{x}.", "{x},", "{x};", "{x}...", "-{x}-", "~{x}~", "{x}!!!",
)  # fmt: skip
_SEPARATORS = "_/|+=~"


@dataclass(frozen=True)
class Variant:
    """A spelling of a name, and the family of edits that made it."""

    text: str
    family: str


def character_variants(name: str, *, limit: int, seed: int) -> tuple[Variant, ...]:
    """Up to `limit` different spellings of `name`, never the name itself.

    Families take turns, each in an order drawn from `seed`, so that a small limit holds some of
    every family. The same arguments give the same variants in the same order.
    """
    rng = np.random.default_rng(seed)
    waiting: dict[str, list[str]] = {}
    for family, spellings in FAMILIES.items():
        made = list(dict.fromkeys(spellings(name)))
        waiting[family] = [made[i] for i in rng.permutation(len(made))]
    seen = {name}
    variants: list[Variant] = []
    while any(waiting.values()) and len(variants) < limit:
        for family, texts in waiting.items():
            while texts and texts[-1] in seen:
                texts.pop()
            if texts and len(variants) < limit:
                seen.add(texts[-1])
                variants.append(Variant(texts.pop(), family))
    return tuple(variants)


def _letters(name: str) -> list[int]:
    return [i for i, character in enumerate(name) if character.isalnum()]


def _drop(name: str) -> Iterator[str]:
    return (name[:i] + name[i + 1 :] for i in _letters(name) if len(_letters(name)) > 1)


def _double(name: str) -> Iterator[str]:
    return (name[:i] + name[i] + name[i:] for i in _letters(name))


def _swap(name: str) -> Iterator[str]:
    for i, j in pairwise(_letters(name)):
        yield name[:i] + name[j] + name[i + 1 : j] + name[i] + name[j + 1 :]


def _insert(name: str) -> Iterator[str]:
    for i in range(len(name) + 1):
        yield from (name[:i] + letter + name[i:] for letter in string.ascii_lowercase)


def _neighbour(name: str) -> Iterator[str]:
    for i in _letters(name):
        yield from (name[:i] + key + name[i + 1 :] for key in keyboard_neighbours(name[i].lower()))


def keyboard_neighbours(letter: str) -> str:
    """The letters whose keys touch `letter`'s on a QWERTY keyboard; none for another character."""
    places = {
        key: (row, column + _STAGGER * row)
        for row, keys in enumerate(_KEYBOARD)
        for column, key in enumerate(keys)
    }
    if letter not in places:
        return ""
    row, column = places[letter]
    return "".join(
        key
        for key, (r, c) in places.items()
        if key != letter and abs(r - row) <= 1 and abs(c - column) <= 1
    )


def _case(name: str) -> Iterator[str]:
    yield from (name.upper(), name.title(), name.capitalize(), name.swapcase())
    for odd in (0, 1):
        yield "".join(c.upper() if i % 2 == odd else c.lower() for i, c in enumerate(name))
    for i in _letters(name):
        yield name[:i] + name[i].swapcase() + name[i + 1 :]


def _between(name: str, gap: str) -> Iterator[str]:
    """`gap` between all letters, and at each single place inside a word; words joined by it."""
    yield gap.join(name.replace(" ", ""))
    yield " ".join(gap.join(word) for word in name.split())
    for i in range(1, len(name)):
        if " " not in name[i - 1 : i + 1]:
            yield name[:i] + gap + name[i:]
    yield name.replace(" ", gap)


def _spacing(name: str) -> Iterator[str]:
    yield from _between(name, " ")
    yield from ("  ".join(name), name.replace(" ", ""), name.replace(" ", "\u00a0"))


def _split(name: str) -> Iterator[str]:
    for separator in _SEPARATORS:
        yield from _between(name, separator)


def _possessive(name: str) -> Iterator[str]:
    return (name + ending for ending in ("'s", "’s", "s'", " 's", "´s"))  # noqa: RUF001


def _plural(name: str) -> Iterator[str]:
    yield from (name + ending for ending in ("s", "es", "z", "ies", "ish", "y"))
    yield from (f"{name} {name}", f"many {name}s", f"{name}-like")


def _words(name: str) -> Iterator[str]:
    """Of a name of several words: single ones, another order, initials."""
    words = name.split()
    if len(words) > 1:
        yield from words
        yield " ".join(reversed(words))
        for i, word in enumerate(words):
            for initial in (word[0], f"{word[0]}."):
                yield " ".join([*words[:i], initial, *words[i + 1 :]])


def _emoji(name: str) -> Iterator[str]:
    for emoji in _EMOJI:
        yield from (f"{emoji}{name}", f"{name}{emoji}", f"{emoji} {name} {emoji}")
        yield from (name[:i] + emoji + name[i:] for i in range(1, len(name), 2))


def _around(name: str) -> Iterator[str]:
    return (shape.replace("{x}", name) for shape in _AROUND)


def _replaced(name: str, table: Mapping[str, str]) -> Iterator[str]:
    """Each letter alone by each of its replacements, then all letters by their n-th one."""
    for i in _letters(name):
        yield from (name[:i] + new + name[i + 1 :] for new in table.get(name[i].lower(), ""))
    for turn in range(max((len(new) for new in table.values()), default=0)):
        yield "".join(
            options[turn % len(options)] if (options := table.get(c.lower())) else c for c in name
        )


def _homoglyph(name: str) -> Iterator[str]:
    yield from _replaced(name, _HOMOGLYPHS)
    for first in _STYLED_ALPHABETS:
        yield "".join(
            chr(first + ord(c) - ord("a")) if c in string.ascii_lowercase else c
            for c in name.lower()
        )


def _zero_width(name: str) -> Iterator[str]:
    for hidden in _INVISIBLE:
        yield from (name[:i] + hidden + name[i:] for i in range(len(name) + 1))
        yield hidden.join(name)


def _accent(name: str) -> Iterator[str]:
    for mark in _MARKS:
        yield from (name[: i + 1] + mark + name[i + 1 :] for i in _letters(name))
        yield "".join(c + mark if c.isalnum() else c for c in name)


Spellings = Callable[[str], Iterable[str]]
FAMILIES: Mapping[str, Spellings] = {
    "drop": _drop,
    "double": _double,
    "swap": _swap,
    "insert": _insert,
    "keyboard": _neighbour,
    "case": _case,
    "spacing": _spacing,
    "hyphen": lambda name: _between(name, "-"),
    "dot": lambda name: _between(name, "."),
    "split": _split,
    "possessive": _possessive,
    "plural": _plural,
    "words": _words,
    "emoji": _emoji,
    "punctuation": _around,
    "homoglyph": _homoglyph,
    "zero-width": _zero_width,
    "accent": _accent,
    "leetspeak": lambda name: _replaced(name, _LEET),
}
