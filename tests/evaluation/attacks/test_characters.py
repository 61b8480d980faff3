"""Spellings must be many, different, in a fixed order, and of every family."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edits.evaluation.attacks.characters import (
    FAMILIES,
    character_variants,
    keyboard_neighbours,
)
from edits.method.text import normalise

NAMES = st.text("abcdefghijklmnopqrstuvwxyz ", min_size=2, max_size=14).map(
    lambda text: " ".join(text.split())
)


def of(family, name="pistol"):
    return set(FAMILIES[family](name))


@settings(max_examples=40, deadline=None)
@given(NAMES.filter(bool), st.integers(1, 400), st.integers(0, 9))
def test_variants_are_different_and_never_the_name(name, limit, seed):
    variants = character_variants(name, limit=limit, seed=seed)
    texts = [variant.text for variant in variants]
    assert len(texts) == len(set(texts)) <= limit
    assert name not in texts
    assert character_variants(name, limit=limit, seed=seed) == variants


def test_a_smaller_budget_is_the_beginning_of_a_larger_one():
    many = character_variants("van gogh", limit=500, seed=3)
    assert character_variants("van gogh", limit=60, seed=3) == many[:60]


def test_another_seed_gives_other_spellings_of_the_same_families():
    one, other = (character_variants("pistol", limit=100, seed=s) for s in (0, 1))
    assert {v.family for v in one} == {v.family for v in other}
    assert {v.text for v in one} != {v.text for v in other}


def test_a_budget_of_one_round_holds_every_family():
    variants = character_variants("van gogh", limit=len(FAMILIES), seed=0)
    assert {variant.family for variant in variants} == set(FAMILIES)


@pytest.mark.parametrize(
    ("family", "texts"),
    [
        ("drop", {"istol", "pistl", "pisto"}),
        ("double", {"ppistol", "pisstol", "pistoll"}),
        ("swap", {"psitol", "pisotl", "pistlo"}),
        ("insert", {"xpistol", "pisxtol", "pistolx"}),
        ("keyboard", {"oistol", "piatol", "pistok"}),
        ("case", {"PISTOL", "Pistol", "pIsToL"}),
        ("spacing", {"p i s t o l", "pi stol"}),
        ("hyphen", {"p-i-s-t-o-l", "pis-tol"}),
        ("dot", {"p.i.s.t.o.l", "pist.ol"}),
        ("split", {"pis/tol", "p_i_s_t_o_l"}),
        ("possessive", {"pistol's", "pistol’s"}),  # noqa: RUF001
        ("plural", {"pistols"}),
        ("emoji", {"🔫pistol", "🔫 pistol 🔫", "p🔫istol"}),
        ("punctuation", {"(pistol)", "pistol!", '"pistol"'}),
        ("homoglyph", {"рistol", "pistоl", "ｐｉｓｔｏｌ"}),  # noqa: RUF001
        ("zero-width", {"pist\u200bol", "p\u200di\u200ds\u200dt\u200do\u200dl"}),
        ("accent", {"pi\u0301stol"}),
        ("leetspeak", {"p1stol", "pist0l", "p15701"}),
    ],
)
def test_a_family_makes_what_its_name_says(family, texts):
    assert texts <= of(family)


def test_words_of_a_name_stand_alone_turn_round_and_shrink_to_initials():
    assert {"gogh", "van", "gogh van", "v. gogh", "van g"} <= of("words", "van gogh")
    assert of("words", "pistol") == set()


def test_words_are_run_together():
    assert "vangogh" in of("spacing", "van gogh")
    assert "van-gogh" in of("hyphen", "van gogh")


def test_hidden_spellings_look_like_the_name_and_have_other_characters():
    for text in of("zero-width"):
        shown = "".join(c for c in text if unicodedata.category(c) != "Cf")
        assert shown == "pistol" != text
        assert normalise(text) == "pistol"
    for text in of("homoglyph"):
        assert len(text) == len("pistol")
        assert not text.isascii() or "1" in text


def test_neighbours_on_the_keyboard_touch_and_touch_back():
    assert set(keyboard_neighbours("g")) == set("tyfhvb")
    assert set(keyboard_neighbours("q")) == set("wa")
    letters = "abcdefghijklmnopqrstuvwxyz"
    for one in letters:
        for other in keyboard_neighbours(one):
            assert one in keyboard_neighbours(other)
    assert keyboard_neighbours("5") == ""
