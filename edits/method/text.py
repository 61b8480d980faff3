"""The one spelling under which every caption and every prompt is tokenised.

A tokenizer reads bytes: "pistol" with a Cyrillic er, with a zero-width space or in mathematical
script has nothing in common with `pistol` there, and to the eye they are one word. What looks
alike is spelt alike here (Unicode NFKC, then the confusables of UTS 39, narrowed), before an edit
captures its keys and before a request is encoded.
"""

import json
import re
import string
import unicodedata
from contextlib import suppress
from functools import cache, lru_cache
from importlib import resources
from itertools import chain, groupby, islice

__all__ = ["normalise"]

# Cf and Cs hold zero-width, direction-changing, tag and unpaired code points.
_UNSEEN = frozenset({"Cc", "Cf", "Cs"})
_UNSEEN_ASCII = re.compile(r"[\0-\x08\x0e-\x1f\x7f]")
# Draws nothing although filed under letters, marks, symbols or not at all.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2065\u3164\ufe00-\ufe0f\uffa0"
    "\ufff0-\ufff8\U00016fe4\U0001d159\U000e0000-\U000e0fff]"
)
_WHITE_CONTROLS = "\t\n\v\f\r\x85"  # str.isspace would add four separators that draw nothing

# Marks of no script of their own, and those that ring a letter. A keycap on a digit is an emoji.
_DECORATION = re.compile(
    "[\u0300-\u036f\u0488\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20e2\u20e4-\u20ff"
    "\ua670-\ua672\ufe20-\ufe2f]"
)
_MAX_MARKS = 30  # on one letter (UAX 15, stream-safe text): sorting them takes quadratic time

# NFKC spells the parenthesised ones "(p)", leaves boxed ones and the empty braille cell as they
# are, and takes the lunate sigma, a plain c, for the other one.
_SPELT: dict[str, str] = {
    **{chr(0x249C + i): letter for i, letter in enumerate(string.ascii_lowercase)},
    **{
        chr(first + i): letter
        for first in (0x1F110, 0x1F150, 0x1F170)
        for i, letter in enumerate(string.ascii_uppercase)
    },
    "\u2800": " ",
    "\N{GREEK LUNATE SIGMA SYMBOL}": "c",
    "\N{GREEK CAPITAL LUNATE SIGMA SYMBOL}": "C",
}

# Not in UTS 39, but the palochka: an i there, the l of many a false "apple" elsewhere.
_LIKE_LATIN = {
    "\N{CYRILLIC SMALL LETTER PALOCHKA}": "l",
    "\N{LATIN SMALL LETTER DOTLESS J}": "j",
    "\N{LATIN SMALL LETTER KRA}": "k",
}
# Small letters too unlike to pass for Latin alone; in a word with Latin letters they do.
_BESIDE_LATIN = {
    "CYRILLIC": {
        **{"VE": "b", "GHE": "r", "KA": "k", "EM": "m", "EN": "h"},
        **{"PE": "n", "TE": "t", "SHA": "w", "SOFT SIGN": "b"},
    },
    "GREEK": {
        **{"BETA": "b", "GAMMA": "y", "EPSILON": "e", "ZETA": "z", "ETA": "n", "KAPPA": "k"},
        **{"MU": "u", "SIGMA": "o", "TAU": "t", "CHI": "x", "OMEGA": "w"},
    },
    "ARMENIAN": {"AYB": "w", "RA": "n"},
}


def normalise(text: str) -> str:
    """`text` as it is tokenised. Idempotent; raises nothing; case is left to the tokenizer.

    ASCII comes back as it is, but for control characters (removed) and white space (single
    spaces, none at the ends). `p1stol` and `p.i.s.t.o.l` are ASCII: misspellings, for aliases and
    hardening to meet, not a matter of Unicode. Other text is brought to NFKC and loses what draws
    nothing (zero-width, direction, tags, variation selectors, fillers, controls). Then each word, a
    run of letters and marks, is judged by itself, so that a name is spelt in a caption as alone:

    - A word is mapped to Latin if every letter of it has an ASCII look-alike. Beside an ASCII
      letter more pass for one (k of "knife" as a Cyrillic ka) than in a word without: `кот`,
      `λόγος` and `猫` stay. The price: a word wholly of look-alikes, as Russian for "sugar", reads
      as Latin, because nothing tells it from a disguise.
    - Marks that compose with their letter stay. `café` is how the word is written, byte-level BPE
      has learnt it so, and ordinary prompts must draw what diffusers draws. Hence `pístol` stays
      too, and so do letters with a stroke or hook of their own (`ø`, `ł`, `ɓ`): misspellings.
    - Marks that no single character can carry, struck through, ringed or stacked, are decoration.
      They go, and in a Latin word every other mark with them. The price: letters that an alphabet
      does write so, as Yoruba's `ẹ̀`, become bare.

    Emoji keep their characters, not the joiners and selectors between them: a family becomes its
    members. Flags stay, and so do look-alikes among symbols and punctuation.
    """
    if text.isascii():
        return " ".join(_UNSEEN_ASCII.sub("", text).split())
    text = unicodedata.normalize("NFC", _bounded("".join(map(_parts, text))))
    chunks = (chunk if chunk.isascii() else _spelt(chunk) for chunk in text.split())
    # Again, for Korean letters that a removed mark kept apart.
    return unicodedata.normalize("NFC", " ".join(filter(None, chunks)))


@lru_cache(4096)
def _parts(character: str) -> str:
    """What is left to see of a character, decomposed."""
    parts = _SPELT.get(character) or unicodedata.normalize("NFKD", character)
    return "".join(
        part
        for part in parts
        if part in _WHITE_CONTROLS
        or not (unicodedata.category(part) in _UNSEEN or _BLANK.match(part))
    )


def _bounded(text: str) -> str:
    """Decomposed `text` without the marks of a stack beyond its first 30."""
    marks = filter(_is_mark, set(text))
    if sum(map(text.count, marks)) <= _MAX_MARKS:
        return text
    stacks = groupby(text, _is_mark)
    return "".join(chain.from_iterable(islice(run, _MAX_MARKS) if m else run for m, run in stacks))


def _spelt(chunk: str) -> str:
    """A chunk without white space, each of its words in its own spelling."""
    runs = ((in_word, "".join(run)) for in_word, run in groupby(chunk, _in_word))
    return "".join(_word(run) if in_word and not run.isascii() else run for in_word, run in runs)


@lru_cache(4096)
def _in_word(character: str) -> bool:
    # A numeral of another script inside a word passes for a letter; an ASCII digit is a digit.
    return (character.isalnum() and not "0" <= character <= "9") or _is_mark(character)


@lru_cache(4096)
def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _word(run: str) -> str:
    """A run of letters and marks in NFC: mapped to Latin, or only undecorated."""
    letters = unicodedata.normalize("NFD", run)
    has_latin = any(map(str.isascii, letters))
    looks = _lookalikes(beside_latin=has_latin)
    bases, latin = "", ""
    for letter in letters:
        if _is_mark(letter):
            look = letter if has_latin or _DECORATION.match(letter) else None
        else:
            look = letter if letter.isascii() else looks.get(letter)
            if look == "l" and not letter.islower() and not bases[-1:].islower():
                look = "I"  # the same bar; UTS 39 calls it l even in capitals
            bases += look or ""
        if look is None:
            return _DECORATION.sub("", run)
        latin += look
    composed = unicodedata.normalize("NFC", latin)
    return bases if any(map(_is_mark, composed)) else composed


@cache
def _lookalikes(*, beside_latin: bool) -> dict[str, str]:
    """Letter to its Latin look-alike, in a word that has a Latin letter and in one that has none.

    Numerals and right-to-left letters pass for Latin in the first kind only.
    """
    file = resources.files("confusable_homoglyphs") / "confusables.json"
    confusables = json.loads(file.read_text(encoding="utf-8"))
    looks = {
        alike: letter
        for letter in string.ascii_letters
        for entry in confusables.get(letter, ())
        # The file brackets right-to-left characters.
        if len(alike := entry["c"].strip("\N{LEFT-TO-RIGHT MARK}")) == 1 and alike.isalnum()
    }
    looks |= _LIKE_LATIN | _small_capitals()
    faint = {
        unicodedata.lookup(f"{script} SMALL LETTER {name}"): letter
        for script, letters in _BESIDE_LATIN.items()
        for name, letter in letters.items()
    }
    if beside_latin:
        return looks | faint
    return {
        alike: letter
        for alike, letter in looks.items()
        if alike.isalpha() and unicodedata.bidirectional(alike) == "L" and alike not in faint
    }


def _small_capitals() -> dict[str, str]:
    found: dict[str, str] = {}
    for letter in string.ascii_uppercase:
        with suppress(KeyError):  # Unicode has no small capital X
            found[unicodedata.lookup(f"LATIN LETTER SMALL CAPITAL {letter}")] = letter.lower()
    return found
