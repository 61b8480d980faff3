"""A name as people misspell it, or spell it to get past a filter. One variant for each call."""

import unicodedata
from collections.abc import Callable, Mapping

import numpy as np

# Left and right neighbours on a QWERTY row.
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")

# Cyrillic, Greek and Armenian letters that look like the Latin one in most fonts.
_LOOKALIKES = {
    "a": "\u0430", "c": "\u0441", "d": "\u0501", "e": "\u0435", "g": "\u0261", "h": "\u04bb",
    "i": "\u0456", "j": "\u0458", "k": "\u043a", "l": "\u04cf", "n": "\u0578", "o": "\u03bf",
    "p": "\u0440", "q": "\u051b", "s": "\u0455", "u": "\u057d", "v": "\u03bd", "w": "\u051d",
    "x": "\u0445", "y": "\u0443",
}  # fmt: skip

# Zero-width space, non-joiner, joiner, word joiner, byte order mark, soft hyphen.
_INVISIBLE = ("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad")

Spelling = Callable[[str, np.random.Generator], str]


def typo(name: str, rng: np.random.Generator) -> str:
    """One slip inside the longest word: a letter dropped, doubled, hit beside, or two swapped."""
    start, word = _longest_word(name)
    slips = []
    for place in range(1, len(word)):
        letter, rest = word[place], word[place + 1 :]
        slips += [word[:place] + rest, word[:place] + 2 * letter + rest]
        slips += [word[:place] + key + rest for key in _beside(letter)]
        if rest and rest[0] != letter:
            slips.append(word[:place] + rest[0] + letter + rest[1:])
    slips = slips or [2 * word]
    return name[:start] + _one(slips, rng) + name[start + len(word) :]


def spacing(name: str, rng: np.random.Generator) -> str:
    """The name pulled apart by a space, a hyphen or both ends, or its words run together."""
    start, word = _longest_word(name)
    spelled = [" ".join(name.replace(" ", ""))]
    for place in range(1, len(word)):
        cut = start + place
        spelled += [f"{name[:cut]}{gap}{name[cut:]}" for gap in (" ", "-")]
    if " " in name:
        spelled += [name.replace(" ", gap) for gap in ("", "-", "  ", "_")]
    return _one(spelled, rng)


def case(name: str, rng: np.random.Generator) -> str:
    """The name in capitals, with initial capitals, or in mixed case."""
    mixed = "".join(c.upper() if rng.random() < 0.5 else c.lower() for c in name)
    spelled = [name.upper(), name.title(), name.capitalize(), mixed]
    return _one([text for text in spelled if text != name] or [name], rng)


def hidden(name: str, rng: np.random.Generator) -> str:
    """The same to the eye: look-alikes of other scripts, wide forms, or characters without width.

    Some or all letters are exchanged, or one to three invisible characters put between them.
    """
    choice = rng.integers(3)
    if choice == 0 and any(c in _LOOKALIKES for c in name):
        places = [i for i, c in enumerate(name) if c in _LOOKALIKES]
        chosen = rng.permutation(places)[: rng.integers(1, len(places) + 1)].tolist()
        return "".join(_LOOKALIKES[c] if i in chosen else c for i, c in enumerate(name))
    if choice == 1:
        wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in name)
        if unicodedata.normalize("NFKC", wide) == name != wide:
            return wide
    spelled = name
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(1, max(2, len(spelled))))
        spelled = spelled[:place] + _one(_INVISIBLE, rng) + spelled[place:]
    return spelled


SPELLINGS: Mapping[str, Spelling] = {
    "typo": typo,
    "spacing": spacing,
    "case": case,
    "homoglyph": hidden,
}


def _longest_word(name: str) -> tuple[int, str]:
    word = max(name.split(), key=len)
    return name.index(word), word


def _beside(letter: str) -> list[str]:
    for row in _ROWS:
        place = row.find(letter)
        if place >= 0:
            return [*row[max(0, place - 1) : place], *row[place + 1 : place + 2]]
    return []


def _one(options: "list[str] | tuple[str, ...]", rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
