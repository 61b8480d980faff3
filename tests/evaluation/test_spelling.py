"""Variants of a name must differ from it, and be what their group says."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edits.evaluation.spelling import SPELLINGS, case, hidden, spacing, typo
from edits.method.text import normalise

NAMES = ("pistol", "van gogh", "line drawing", "the king's emblem", "key")


def variants(spell, name: str, count: int = 200) -> set[str]:
    rng = np.random.default_rng(5)
    return {spell(name, rng) for _ in range(count)}


def distance(one: str, other: str) -> int:
    """Levenshtein's, with swaps of neighbours (optimal string alignment)."""
    table = np.zeros((len(one) + 1, len(other) + 1), int)
    table[:, 0], table[0] = range(len(one) + 1), range(len(other) + 1)
    for i, a in enumerate(one, 1):
        for j, b in enumerate(other, 1):
            table[i, j] = min(
                table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b)
            )
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2]:
                table[i, j] = min(table[i, j], table[i - 2, j - 2] + 1)
    return int(table[-1, -1])


@pytest.mark.parametrize("name", NAMES)
def test_a_typo_is_one_slip_and_keeps_the_first_letter(name):
    found = variants(typo, name)
    assert len(found) > 5
    assert {distance(name, text) for text in found} == {1}
    assert {text[0] for text in found} == {name[0]}


@pytest.mark.parametrize("name", NAMES)
def test_spacing_changes_nothing_but_gaps(name):
    found = variants(spacing, name)
    assert name not in found
    bare = {text.replace(" ", "").replace("-", "").replace("_", "") for text in found}
    assert bare == {name.replace(" ", "")}


@pytest.mark.parametrize("name", NAMES)
def test_case_changes_nothing_but_case(name):
    found = variants(case, name)
    assert name not in found
    assert {text.casefold() for text in found} == {name}


@pytest.mark.parametrize("name", NAMES)
def test_hidden_spellings_are_other_characters_that_a_reader_takes_for_the_name(name):
    found = variants(hidden, name)
    assert len(found) > 20
    for text in found:
        assert text != name
        assert any(ord(c) > 127 for c in text)
    latin = [t for t in found if unicodedata.normalize("NFKC", t).isascii()]
    assert {unicodedata.normalize("NFKC", text) for text in latin} <= {name}


@pytest.mark.parametrize("name", ("pistol", "van gogh", "umbrella"))
def test_hidden_spellings_and_cases_reach_the_tokenizer_as_the_plain_name(name):
    for spell in (hidden, case):
        assert {normalise(text).casefold() for text in variants(spell, name)} == {name}


@given(st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=8))
def test_any_word_can_be_spelled_in_every_way(name):
    rng = np.random.default_rng(0)
    for spell in SPELLINGS.values():
        assert spell(name, rng)
