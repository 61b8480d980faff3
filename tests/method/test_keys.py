import pytest
import torch

from edits.errors import ConceptUntraceable
from edits.method import QUICKFIX
from edits.method.captions import fill, preserve_captions
from edits.method.keys import KeyCache
from edits.method.tokens import CaptionTokenizer
from tests.tiny_pipeline import HIDDEN, POSITIONS

from .conftest import ORDINARY

CAPTION_BYTES = POSITIONS * HIDDEN * 8


@pytest.fixture
def cache(pipeline):
    def make(ordinary=ORDINARY, **options):
        tokenizer = CaptionTokenizer(pipeline.tokenizer)
        return KeyCache(pipeline.text_encoder, tokenizer, ordinary, **options)

    return make


def relative(a, b):
    return float((a - b).norm() / b.norm())


def brute_gram(keys, names):
    captured = keys.of(QUICKFIX, [c for name in names for c in preserve_captions(name)])
    stacked = torch.cat([key for key, _ in captured])
    return stacked.T @ stacked


def test_keys_come_back_in_the_order_asked_repeats_included(cache):
    keys = cache()
    captions = [fill("a photo of {ax}", name) for name in ("cat", "pistol", "cat")]
    first, second, third = keys.of(QUICKFIX, captions)
    assert first[0] is third[0]
    assert first[0].shape == (POSITIONS, HIDDEN)
    assert not torch.equal(first[0], second[0])
    assert torch.equal(first[0], keys.of(QUICKFIX, captions[:1])[0][0])


def test_more_captions_than_a_batch_keep_their_own_keys(cache):
    keys = cache()
    names = [f"cat{'s' * n}" for n in range(15)]
    captions = [fill(t, n) for n in names for t in ("{x}", "a {x}", "the {x}", "two {x}", "no {x}")]
    many = keys.of(QUICKFIX, captions)
    alone = cache().of(QUICKFIX, captions[70:71])
    assert relative(many[70][0], alone[0][0]) < 1e-6
    assert many[70][1] == alone[0][1]


def test_kept_keys_stay_within_the_budget(cache):
    """Distinct concepts must not grow the process for ever."""
    keys = cache(budget_bytes=5 * CAPTION_BYTES)
    for n in range(20):
        keys.of(QUICKFIX, [fill("{x}", f"cat {n}"), fill("a {x}", f"cat {n}")])
        assert keys.held_bytes <= 5 * CAPTION_BYTES
    assert keys.held_bytes == 4 * CAPTION_BYTES


def test_what_was_dropped_is_captured_again_with_the_same_bits(cache):
    keys = cache(budget_bytes=2 * CAPTION_BYTES)
    wanted = [fill("{x}", "cat"), fill("a {x}", "cat")]
    before = [key.clone() for key, _ in keys.of(QUICKFIX, wanted)]
    keys.of(QUICKFIX, [fill("{x}", "pistol"), fill("a {x}", "pistol")])
    after = keys.of(QUICKFIX, wanted)
    assert all(torch.equal(b, a) for b, (a, _) in zip(before, after, strict=True))


def test_a_request_over_the_budget_is_answered_and_not_kept(cache):
    keys = cache(budget_bytes=CAPTION_BYTES)
    assert len(keys.of(QUICKFIX, [fill("{x}", "cat"), fill("{x}", "gun")])) == 2
    assert keys.held_bytes == 0


def test_ordinary_names_leave_their_sum_behind_and_no_keys(cache):
    keys = cache()
    keys.preserved_gram(QUICKFIX, (), ())
    assert keys.held_bytes == 0


def test_the_gram_matrix_sums_every_position_of_every_preserved_caption(cache):
    keys = cache()
    gram = keys.preserved_gram(QUICKFIX, ["knife", "knife", "cat"], [])
    assert relative(gram, brute_gram(keys, [*ORDINARY, "knife"])) < 1e-13


def test_names_that_a_removed_concept_stands_in_are_not_preserved(cache):
    keys = cache(("cat", "toy robot", "robots", "house"))
    gram = keys.preserved_gram(QUICKFIX, ["Robot", "a robot arm", "knife"], ["gun", "robot"])
    assert relative(gram, brute_gram(keys, ["cat", "robots", "house", "knife"])) < 1e-12
    untouched = keys.preserved_gram(QUICKFIX, [], [])
    assert relative(untouched, brute_gram(keys, ["cat", "toy robot", "robots", "house"])) < 1e-13


def test_nothing_preserved_is_a_zero_matrix(cache):
    gram = cache(()).preserved_gram(QUICKFIX, [], ["cat"])
    assert gram.shape == (HIDDEN, HIDDEN)
    assert not gram.any()


def test_an_untraceable_name_is_refused_under_its_own_field(cache):
    long = " ".join(["cat"] * POSITIONS)
    with pytest.raises(ConceptUntraceable) as caught:
        cache().preserved_gram(QUICKFIX, [long], [])
    assert caught.value.param == "spec.preserve"
    with pytest.raises(ConceptUntraceable) as caught:
        cache((long,)).preserved_gram(QUICKFIX, [], [])
    assert caught.value.param == "ordinary_captions"
