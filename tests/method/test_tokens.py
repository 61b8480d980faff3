"""Where the subject ends, for each layout's padding."""

import threading

import pytest
import torch

from edits.errors import ConceptUntraceable
from edits.method.captions import Caption, fill
from edits.method.tokens import CaptionTokenizer
from tests.tiny_pipeline import POSITIONS


@pytest.fixture
def tokenizer(pristine):
    return CaptionTokenizer(pristine.tokenizer)


def one(tokenizer, caption, **options):
    (tokens,) = tokenizer([caption], **options)
    return tokens


def word_at(pristine, tokens):
    return pristine.tokenizer.convert_ids_to_tokens(int(tokens.ids[tokens.last]))


def within(text, subject):
    start = text.index(subject)
    return Caption(text, start, start + len(subject))


def end_of(pristine, text):
    """Position of a text's last token, counted without any offsets."""
    return len(pristine.tokenizer(text).input_ids) - 2


@pytest.mark.parametrize(
    ("text", "subject", "word"),
    [
        ("pistol", "pistol", "pistol</w>"),
        ("a photo of a pistol", "pistol", "pistol</w>"),
        ("van gogh", "van gogh", "gogh</w>"),
        ("a painting by van gogh", "van gogh", "gogh</w>"),
        ("a van gogh painting", "van gogh", "gogh</w>"),
        ("a Van GOGH painting", "Van GOGH", "gogh</w>"),
        ("a van  gogh painting", "van  gogh", "gogh</w>"),
        ("a gun and a gun", "gun", "gun</w>"),
        ("cat, pistol, toy", "pistol", "pistol</w>"),
    ],
)
def test_last_subject_token_is_found_wherever_it_stands(tokenizer, pristine, text, subject, word):
    caption = within(text, subject)
    tokens = one(tokenizer, caption)
    assert word_at(pristine, tokens) == word
    assert tokens.last == end_of(pristine, text[: caption.stop])


def test_a_word_the_vocabulary_lacks_ends_at_its_last_piece(tokenizer, pristine):
    tokens = one(tokenizer, fill("a photo of {ax}", "zebrax"))
    assert word_at(pristine, tokens) == "x</w>"
    assert int(tokens.ids[tokens.last + 1]) == pristine.tokenizer.eos_token_id


def test_ids_are_those_that_the_pipeline_encodes(tokenizer, pristine):
    captions = [fill("a photo of {ax}", "robot"), fill("{x}", "cat")]
    tokens = tokenizer(captions)
    texts = [caption.text for caption in captions]
    expected = pristine.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    assert torch.equal(tokenizer.padded(tokens), expected)
    assert expected.shape == (2, POSITIONS) == (2, tokenizer.positions)
    assert tokenizer.empty().tolist() == pristine.tokenizer("", padding="max_length").input_ids


def test_a_literal_exclamation_mark_is_no_padding(tokenizer, pristine):
    """SD 2.x pads with the id of "!": what is text and what is padding must come from the mask."""
    end = fill("a photo of {ax}", "pistol!")
    assert one(tokenizer, end).last == end_of(pristine, "a photo of a pistol!")
    assert word_at(pristine, one(tokenizer, end)).startswith("!")
    middle = one(tokenizer, within("wow ! a pistol ! now", "pistol"))
    assert middle.last == end_of(pristine, "wow ! a pistol")


def test_padding_follows_the_layout(tokenizer, pristine):
    ids = tokenizer.padded([one(tokenizer, fill("{x}", "cat"))])[0]
    assert int(ids[2]) == pristine.tokenizer.eos_token_id
    assert set(ids[3:].tolist()) == {pristine.tokenizer.pad_token_id}
    assert pristine.tokenizer.pad_token_id in (0, pristine.tokenizer.eos_token_id)


@pytest.mark.parametrize("subject", ["", " ", "\t"])
def test_an_empty_subject_is_refused(tokenizer, subject):
    """Its last token would be the start-of-text token, which every prompt has."""
    with pytest.raises(ConceptUntraceable, match="no token") as caught:
        one(tokenizer, fill("a photo of {x}", subject))
    assert caught.value.param == "spec.concept"


@pytest.mark.parametrize("subject", ["<|endoftext|>", "cat <|startoftext|>"])
def test_a_subject_that_spells_the_frame_of_a_text_is_refused(tokenizer, subject):
    with pytest.raises(ConceptUntraceable, match="end of a text"):
        one(tokenizer, fill("a photo of {x}", subject))


def test_a_caption_over_the_limit_is_refused_and_one_at_the_limit_is_not(tokenizer):
    assert one(tokenizer, fill("{x}", " ".join(["cat"] * (POSITIONS - 2)))).last == POSITIONS - 2
    with pytest.raises(
        ConceptUntraceable, match=f"{POSITIONS + 1} tokens .* {POSITIONS}"
    ) as caught:
        one(tokenizer, fill("{x}", " ".join(["cat"] * (POSITIONS - 1))), field="spec.anchor")
    assert caught.value.param == "spec.anchor"


def test_threads_share_it_while_the_pipelines_tokenizer_is_in_use(tokenizer, pristine):
    expected = end_of(pristine, "a photo of a cat")
    found = []

    def ours():
        for _ in range(50):
            found.append(one(tokenizer, fill("a photo of {ax}", "cat")).last)

    def theirs():
        for _ in range(50):
            pristine.tokenizer("a cat", padding="max_length", truncation=True)

    threads = [threading.Thread(target=ours) for _ in range(4)] + [threading.Thread(target=theirs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 200
