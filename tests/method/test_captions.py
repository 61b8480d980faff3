import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edits.method import EditSpec
from edits.method.captions import (
    PAPER_TEMPLATES,
    PRESERVE_TEMPLATES,
    TEMPLATES,
    caption_pairs,
    fill,
    mentions,
    naming,
    ordinary_names,
    plural,
    preserve_captions,
)
from edits.method.text import normalise


@pytest.mark.parametrize("kind", ["object", "style", "fact"])
def test_every_template_marks_the_subject_and_nothing_else(kind):
    for template in (*TEMPLATES[kind], *PRESERVE_TEMPLATES):
        caption = fill(template, "owl {x} {}")
        assert caption.subject == (plural("owl {x} {}") if "{xs}" in template else "owl {x} {}")
        assert caption.text[caption.stop :].count("owl") == 0, "the last one is the subject"
        assert "{ax}" not in caption.text


def test_the_article_fits_the_name():
    assert fill("a photo of {ax}", "owl").text == "a photo of an owl"
    assert fill("a photo of {ax}", "Pistol").text == "a photo of a Pistol"


def test_pairs_cover_every_name_in_every_template():
    spec = EditSpec("e", "pistol", "toy", aliases=("gun", "handgun"))
    pairs = caption_pairs(spec)
    assert len(pairs) == 3 * len(TEMPLATES["object"])
    singular = {"pistol", "gun", "handgun"}
    assert {p.concept.subject for p in pairs} == singular | {f"{name}s" for name in singular}
    assert {pair.anchor.subject for pair in pairs} == {"toy", "toys"}
    assert pairs[1].concept.text == "a photo of pistol"
    assert pairs[1].anchor.text == "a photo of toy"


def test_parity_takes_the_four_templates_of_the_released_code():
    spec = EditSpec("e", "van gogh", "painting", kind="style", parity=True)
    texts = [pair.concept.text for pair in caption_pairs(spec)]
    assert texts == [template.format(x="van gogh") for template in PAPER_TEMPLATES]
    assert len(texts) == 4


@pytest.mark.parametrize(
    ("text", "name", "expected"),
    [
        ("a pistol", "pistol", True),
        ("PISTOL, loaded", "Pistol", True),
        ("pistols", "pistol", False),
        ("handgun", "gun", False),
        ("hand-gun", "gun", True),
        ("a van  gogh painting", "van gogh", True),
        ("vangogh", "van gogh", False),
        ("c++ and more", "c++", True),
        ("c+", "c++", False),
        ("straße", "STRASSE", True),
        ("a cat", "", False),
        ("a.b", "a b", False),
        ("axb", "a.b", False),
    ],
)
def test_mentions_whole_words_only(text, name, expected):
    assert mentions(text, name) is expected


def test_preserve_captions_name_the_text():
    assert [c.text for c in preserve_captions("owl")] == [
        "owl",
        "a photo of an owl",
        "a picture of an owl",
    ]


def test_ordinary_names_are_short_plain_and_without_repeats():
    names = ordinary_names()
    assert 140 <= len(names) <= 160
    assert len(set(names)) == len(names)
    assert all(name == name.lower().strip() and 2 < len(name) <= 20 for name in names)
    assert {"cat", "car", "red", "oil painting"} <= set(names)


@pytest.mark.parametrize(
    ("name", "several"), [("knife", "knives"), ("mug of beer", "mugs of beer"), ("fish", "fish")]
)
def test_the_plural_is_that_of_the_noun(name, several):
    assert plural(name) == several


@pytest.mark.parametrize(
    ("name", "several"),
    [
        ("Girl with a Pearl Earring", "Girl with a Pearl Earrings"),
        ("Giant Pacific Octopus at Monterey", "Giant Pacific Octopus at Montereys"),
        ("giant pacific octopus at monterey", "giant pacific octopus at montereys"),
        ("Mother of Dragons", "Mothers of Dragons"),
        ("cup  of tea", "cup  of teas"),
        ("a|b", "a|bs"),
        (" ", " "),
    ],
)
def test_the_plural_of_a_title_keeps_its_words(name, several):
    assert plural(name) == several


_WORDS = (
    *("girl", "Girl", "GIRL", "octopus", "Monterey", "Earring", "person", "man", "mice", "Toys"),
    *("a", "A", "an", "The", "of", "Of", "OF", "at", "with", "in", "per", "degree", "it", "them"),
    *("with-a-", "mother-in-law", "x", "3", "42", "me's", "|", "a|b"),
)
_NAMES = st.lists(
    st.sampled_from(_WORDS) | st.text("abszAZ09'-| ", min_size=1, max_size=6),
    min_size=1,
    max_size=6,
).map(lambda words: normalise(" ".join(words)))


@settings(max_examples=400, deadline=None)
@given(_NAMES)
def test_a_plural_keeps_every_word_but_the_one_that_it_inflects(name):
    words, inflected = name.split(), plural(name).split()
    assert len(words) == len(inflected)
    assert sum(one != other for one, other in zip(words, inflected, strict=True)) <= 1
    assert plural(name).count("|") == name.count("|")


def test_every_caption_of_a_title_is_made():
    spec = EditSpec("e", "Giant Pacific Octopus at Monterey", "toy")
    assert len(caption_pairs(spec)) == len(TEMPLATES["object"])


def test_a_name_that_stands_twice_is_keyed_where_it_stands_last():
    caption = fill("{ax} and one more {x}", "owl")
    assert caption.text == "an owl and one more owl"
    assert caption.start == len("an owl and one more ")


def test_names_are_spelt_as_a_tokenizer_reads_them():
    assert fill("a {x}", "p\u0456st\u043el").text == "a pistol"


def test_naming_reads_look_alikes_as_mentions_does():
    assert naming(["a pistol"], ["p\u0456st\u043el"]) == ("a pistol",)
    assert naming(["a p\u0456st\u043el"], ["pistol"]) == ("a p\u0456st\u043el",)


def test_naming_finds_what_mentions_finds():
    texts = ["a pistol", "two pistols", "van  gogh's tree", "a c++ book", "hand-gun", "++"]
    names = ["pistol", "van gogh", "c++", "gun", "++"]
    expected = tuple(t for t in texts if any(mentions(t, n) for n in names))
    assert naming(texts, names) == expected
    assert expected == ("a pistol", "van  gogh's tree", "a c++ book", "hand-gun", "++")
