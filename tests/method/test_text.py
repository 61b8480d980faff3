# ruff: noqa: RUF001 - letters that look like other letters are what is tested
"""What looks alike is spelt alike; what is written so stays so."""

import string
import timeit
import unicodedata

import pytest
from confusable_homoglyphs.confusables import is_confusable
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from edits.manifests.schema import MAX_TEXT, ConceptText
from edits.method.text import normalise

CODE_POINTS = range(0x110000)

# Joins, blocks, rings, expands, hides, or is read in two ways.
TROUBLE = (
    "aiIlZ0 \t\n\x00\x1c'-_.é\u0301\u0336\u0338\u0323\u0308\u0489\u20dd\u20e3\u0344\u0345\u034f"
    "рсоеіІӏткйёαοσςϲλא\u05b0\u0591ا٥०ംကဝ猫がプー\u3099\u309a한\u1100\u1161\u11a8\u115f\u3164"
    "\u200b\u200d\u202e\u00ad\ufe0f\ufeff\u2800\u00a0\u2028\u0f73\u0958ıȷøłßİſﬁℴ𝓁ｐⓢ🅿⒫½№ﷺ1️⃣👩🚀🇩🇪\ud800"
)
troublesome = st.text(st.sampled_from(TROUBLE) | st.characters(), max_size=24)


@pytest.mark.parametrize(
    "disguise",
    [
        "рistоl",  # Cyrillic er and o
        "ρiѕтοl",
        "рiѕtоӏ",
        "p\u0456stol",
        "pıstol",
        "pist০l",  # a Bengali zero
        "pistסl",  # a right-to-left letter
        "ｐｉｓｔｏｌ",
        "𝓅𝒾𝓈𝓉ℴ𝓁",
        "𝕡𝕚𝕤𝕥𝕠𝕝",
        "ⓟⓘⓢⓣⓞⓛ",
        "⒫⒤⒮⒯⒪⒧",
        "🅟🅘🅢🅣🅞🅛",
        "🅿🅸🆂🆃🅾🅻",
        "🄿🄸🅂🅃🄾🄻",
        "ᵖⁱˢᵗᵒˡ",
        "ᴘɪꜱᴛᴏʟ",
        "ꓑꓲꓢꓔꓳꓡ",  # Lisu throughout
        "p\u200bistol",
        "p\u00adis\u2060t\ufe0fo\u034fl",
        "\u202epistol\u202c",
        "pis\U000e0074tol",
        "p\x00i\x1cs\x7ftol",
        "p\ud800istol",
        "p̶i̶s̶t̶o̶l̶",
        "p҉i҉s҉t҉o҉l҉",
        "p⃣i⃣s⃣t⃣o⃣l⃣",
        "p̷̢̛̯͉i̶̛̻ś̷t̸̂o̴̎l̵",
        "р̶іѕ\u200bｔ𝓸l",
    ],
)
def test_a_disguised_name_is_spelt_plainly(disguise):
    assert normalise(disguise).lower() == "pistol"
    assert normalise(f"a photo of a {disguise}'s grip").lower() == "a photo of a pistol's grip"


@pytest.mark.parametrize(
    ("letter", "looks"),
    [
        ("a", "аα"), ("b", "вЬᏏ"), ("c", "сϲⲥ"), ("d", "ԁᏧ"), ("e", "еε"), ("f", "ք"), ("g", "ɡց"),
        ("h", "һհн"), ("i", "іıι"), ("j", "јϳȷ"), ("k", "кκᴋ"), ("l", "ӏʟ"), ("m", "мᴍ"),
        ("n", "ոηп"), ("o", "оοօ"), ("p", "рρ"), ("q", "ԛգ"), ("r", "гʀ"), ("s", "ѕꜱ"),
        ("t", "тτᴛ"), ("u", "սυ"), ("v", "νѵ"), ("w", "ԝшω"), ("x", "хχ"), ("y", "уүγ"),
        ("z", "ᴢζ"),
        ("A", "АΑᎪ"), ("B", "ВΒ"), ("C", "СᏟ"), ("E", "ЕΕ"), ("H", "НΗ"), ("I", "ІΙӀ"), ("K", "КΚ"),
        ("M", "МΜ"), ("N", "Ν"), ("O", "ОΟՕ"), ("P", "РΡ"), ("S", "ЅՏ"), ("T", "ТΤ"), ("X", "ХΧ"),
        ("Y", "УΥҮ"), ("Z", "ΖᏃ"),
    ],
)  # fmt: skip
def test_a_look_alike_beside_a_latin_letter_is_that_letter(letter, looks):
    inside = "l" if letter == "I" else letter  # a bare bar between small letters is an l
    for alike in looks:
        assert normalise(f"{alike}zz zz{alike}zz") == f"{letter}zz zz{inside}zz"


def test_every_confusable_letter_of_uts_39_is_ascii_beside_a_latin_letter():
    alike = {
        found["c"].strip("\u200e")
        for letter in is_confusable(string.ascii_letters, greedy=True)
        for found in letter["homoglyphs"]
    }
    letters = {c for c in alike if len(c) == 1 and c.isalpha()}
    assert len(letters) > 900
    assert [c for c in sorted(letters) if not normalise(f"x{c}x").isascii()] == []


def test_every_form_that_nfkc_knows_of_a_letter_or_digit_is_it():
    for character in map(chr, CODE_POINTS):
        plain = unicodedata.normalize("NFKC", character)
        if plain.isascii() and plain.isalnum():
            assert normalise(character) == plain


def test_every_character_that_draws_nothing_goes_or_is_a_space():
    """What a manifest refuses in a name, a prompt may hold; then it must not hide the name."""
    unseen = [c for c in map(chr, CODE_POINTS) if unicodedata.category(c) in ("Cc", "Cf", "Cs")]
    unseen += "\u034f\u115f\u1160\u17b4\u180b\u3164\ufe00\ufe0f\uffa0\u2065\U000e0100\U000e0fff"
    assert len(unseen) > 2000
    for character in unseen:
        white = character in "\t\n\v\f\r\x85"
        for pistol in (f"pis{character}tol", f"рis{character}tоl"):
            assert normalise(pistol) == ("pis tol" if white else "pistol")
    for space in "\u00a0\u2003\u2028\u2029\u3000\u2800":
        assert normalise(f"{space}pis{space} tol{space}") == "pis tol"


@pytest.mark.parametrize(
    "text",
    [
        "кот", "красный кот у дома", "гора", "ёлка й Київ", "λόγος", "ο Σωκράτης είναι άνθρωπος",
        "հաց", "猫", "赤い背景の猫の写真", "Tシャツ", "がぎぐ", "한국어", "हिन्दी", "ဝါး", "ไทย",
        "سلام", "اه", "שָׁלוֹם", "סוס", "০", "二〇二四 〇",
        "🐱", "🇩🇪", "1\u20e3", "café", "naïve façade", "Dvořák",
        "phở tiếng Việt",
        "smørrebrød", "Łódź", "Straße", "ƙarfe", "SPY×FAMILY", "“Don’t” – she said", "a ≠ b",
    ],
)  # fmt: skip
def test_writing_of_its_own_stays(text):
    """But one-letter words, as the Greek article: no other letter tells them from Latin."""
    pairs = zip(text.split(), normalise(text).split(), strict=True)
    assert {word for word, spelt in pairs if word != spelt} <= {"у", "ο"}


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("cafe\u0301", "café"),
        ("cаfe\u0301", "café"),  # Cyrillic a
        ("pístol", "pístol"),
        ("pí\u0336stol", "pistol"),
        ("é\u0301", "e"),
        ("i\u0307stanbul", "istanbul"),
        ("ẹ\u0300kọ\u0301", "eko"),
        ("к\u0336о\u0336т\u0336", "кот"),
        ("1\u0336\u20dd 2", "1 2"),
        ("\u0301", ""),
        ("p\u0336 \u0336i", "p i"),
    ],
)
def test_marks_stay_where_one_character_carries_them(text, spelt):
    assert normalise(text) == spelt


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("Іcе", "Ice"),
        ("ІСЕ", "ICE"),
        ("gіrІ", "girl"),
        ("аррӏе", "apple"),
        ("ѕсоре", "scope"),
        ("сахар", "caxap"),
        ("рistоl-кот", "pistol-кот"),
        ("рistоlж", "рistоlж"),
        ("50 µm", "50 um"),
    ],
)
def test_a_word_is_mapped_as_a_whole_or_not_at_all(text, spelt):
    assert normalise(text) == spelt


@pytest.mark.parametrize("text", ["p1stol", "p.i.s.t.o.l", "p i s t o l", "PiStOl", "pist0l", ""])
def test_misspellings_in_ascii_are_left_alone(text):
    assert normalise(text) == text


@given(st.text(string.printable))
def test_ascii_changes_in_white_space_only(text):
    assert normalise(text) == " ".join(text.split())


@settings(max_examples=500)
@given(troublesome)
@example("\u1100\u0336\u1161")
@example("א" + "\u05b0\u0591" * 40)
@example("\u0f73" * 40)
@example("ﷺ" * 3)
def test_what_is_spelt_plainly_stays(text):
    once = normalise(text)
    assert normalise(once) == once
    assert unicodedata.is_normalized("NFKC", once)


@settings(max_examples=300)
@given(troublesome)
def test_a_name_is_spelt_in_a_caption_as_alone(name):
    spelt = normalise(name)
    if spelt:
        assert normalise(f"a photo of a {name} and a cat") == f"a photo of a {spelt} and a cat"


@given(troublesome)
def test_a_manifest_can_name_whatever_is_left(text):
    spelt = normalise(text)
    if 0 < len(spelt) <= MAX_TEXT:
        assert TypeAdapter(ConceptText).validate_python(spelt) == spelt


def test_a_tower_of_marks_is_cut():
    """Python sorts the marks of one letter in quadratic time: 10,000 took 75 ms."""
    assert normalise("a" + "\u05b0\u0591" * 5000) == "a"
    assert len(normalise("א" + "\u05b0\u0591" * 5000)) == 31


@pytest.mark.parametrize(
    ("words", "limit"),
    [
        ("photograph of a small wooden house", 50e-6),
        ("картина кота и собаки на красном", 1e-3),
        ("рhоtоgrарh оf а ѕmаll wооdеn hоusе", 1e-3),
    ],
)
def test_sixty_words_cost_little(words, limit):
    prompt = " ".join([words] * 10)
    assert len(prompt.split()) == 60
    normalise(prompt)
    assert min(timeit.repeat(lambda: normalise(prompt), number=1, repeat=50)) < limit
