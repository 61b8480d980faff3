"""Captured keys: what is kept, what is merged, what is preserved."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers import CLIPTextModel

from edits.errors import ConceptUntraceable
from edits.method import QUICKFIX, EditSpec
from edits.method.captions import caption_pairs, preserve_captions
from edits.method.capture import capture_keys
from edits.method.components import PROMPT, Components
from edits.method.keys import KeyCache
from tests.tiny_pipeline import HIDDEN, POSITIONS

from .conftest import ORDINARY


@pytest.fixture
def cache(pipeline):
    def make(ordinary=ORDINARY, **options):
        return KeyCache(Components(pipeline), ordinary, **options)

    return make


def relative(a, b):
    return float((a - b).norm() / b.norm())


def whole_keys(pipeline, texts):
    ids = pipeline.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    return capture_keys(pipeline.text_encoder, QUICKFIX, ids)


def last_of(pipeline, caption):
    """The last subject token's place, counted without offsets."""
    return len(pipeline.tokenizer(caption.text[: caption.stop]).input_ids) - 2


def moments(keys, steps):
    return keys.T @ keys, steps.T @ keys


@pytest.mark.parametrize("tokens", ["last", "last+pad"])
def test_rows_have_the_moments_of_a_full_pass_over_every_caption(pipeline, cache, tokens):
    """Captions are cut, equal beginnings run once and rows are merged: nothing may change."""
    spec = EditSpec("e", "pistol", "toy", aliases=("van gogh",), tokens=tokens, pad_weight=0.5)
    pairs = caption_pairs(spec)
    keys, steps = [], []
    concepts = whole_keys(pipeline, [p.concept.text for p in pairs])
    anchors = whole_keys(pipeline, [p.anchor.text for p in pairs])
    for pair, concept, anchor in zip(pairs, concepts, anchors, strict=True):
        last, to = last_of(pipeline, pair.concept), last_of(pipeline, pair.anchor)
        count = POSITIONS - 1 - last
        places = [0] if tokens == "last" else [0, *(p for p in (1, 4, 16) if p <= count)]
        for place, until in zip(places, [*places[1:], count + 1], strict=True):
            weight = 1.0 if place == 0 else 0.5 * (until - place) / count
            wanted = anchor[min(to + place, POSITIONS - 1)]
            keys.append(weight**0.5 * concept[last + place])
            steps.append(weight**0.5 * (wanted - concept[last + place]))
    expected = moments(torch.stack(keys), torch.stack(steps))
    rows = cache().rows(QUICKFIX, spec)
    assert rows.captured == len(keys)
    assert len(rows) < len(keys)
    for ours, theirs in zip(
        moments(rows.keys.double(), rows.steps.double()), expected, strict=True
    ):
        assert relative(ours, theirs) < 1e-5


def test_all_rows_behind_the_subject_weigh_as_one_number(cache):
    rows = [
        cache().rows(QUICKFIX, EditSpec("e", "pistol", "toy", pad_weight=weight))
        for weight in (0.0, 1.0, 3.0)
    ]
    totals = [float(r.ones.double().square().sum()) for r in rows]
    captions = len(caption_pairs(EditSpec("e", "pistol", "toy")))
    assert totals == pytest.approx([captions, 2 * captions, 4 * captions], rel=1e-5)


def test_what_is_asked_again_is_not_captured_again(cache):
    keys = cache()
    spec = EditSpec("e", "pistol", "toy")
    first, again = keys.rows(QUICKFIX, spec), keys.rows(QUICKFIX, spec)
    assert torch.equal(first.keys, again.keys)
    held = keys.held_bytes
    keys.rows(QUICKFIX, EditSpec("another name", "pistol", "toy"))
    assert keys.held_bytes == held


@pytest.mark.parametrize("tokens", ["last", "last+pad"])
@pytest.mark.parametrize("width", [HIDDEN, 768])
def test_what_an_edit_keys_has_the_same_bits_alone_and_in_company(pipeline, tokens, width):
    if width != HIDDEN:
        config = copy.deepcopy(pipeline.text_encoder.config)
        config.hidden_size, config.num_attention_heads = width, 12
        torch.manual_seed(0)
        pipeline.text_encoder = CLIPTextModel(config).eval().requires_grad_(False)
    concepts = [f"{'very ' * (n % 5)}big {noun} {n}" for n in range(12) for noun in ("cat", "gun")]
    specs = [EditSpec(name, name, "toy", tokens=tokens) for name in concepts]
    together, first_half = (KeyCache(Components(pipeline), ()) for _ in range(2))
    together.prepare(QUICKFIX, specs)
    first_half.prepare(QUICKFIX, specs[:5])
    for spec in specs:
        alone = KeyCache(Components(pipeline), ()).rows(QUICKFIX, spec)
        for cache in (together, first_half):
            rows = cache.rows(QUICKFIX, spec)
            assert torch.equal(rows.keys, alone.keys)
            assert torch.equal(rows.steps, alone.steps)


@pytest.fixture
def passes(monkeypatch):
    """One entry for every pass of captions through the encoder."""
    made = []
    monkeypatch.setattr(
        "edits.method.caption_keys.capture_keys",
        lambda *given: made.append(1) or capture_keys(*given),
    )
    return made


def test_an_edit_captures_its_anchor_in_the_pass_of_its_concept(cache, passes):
    keys = cache()
    parity = EditSpec("e", "pistol", "toy", tokens="last+pad", parity=True)
    keys.rows(QUICKFIX, parity)
    assert len(passes) == 1
    keys.rows(QUICKFIX, replace(parity, concept="cat"))
    assert len(passes) == 2


def test_many_edits_are_captured_in_fewer_passes(cache, passes):
    keys = cache()
    specs = [EditSpec(f"e{n}", f"cat {n}", "toy") for n in range(16)]
    keys.prepare(QUICKFIX, specs)
    prepared = len(passes)
    for spec in specs:
        keys.rows(QUICKFIX, spec)
    assert len(passes) == prepared <= 16


def test_kept_keys_stay_within_the_budget(cache):
    """Distinct concepts must not grow the process for ever."""
    budget = 64 * 1024
    keys = cache(budget_bytes=budget)
    for n in range(20):
        keys.rows(QUICKFIX, EditSpec("e", f"cat {n}", "toy"))
        assert keys.held_bytes <= budget


def test_what_was_dropped_is_captured_again_with_the_same_bits(cache):
    keys = cache(budget_bytes=1)
    spec = EditSpec("e", "cat", "toy")
    before = keys.rows(QUICKFIX, spec).keys.clone()
    keys.rows(QUICKFIX, EditSpec("e", "pistol", "toy"))
    assert torch.equal(before, keys.rows(QUICKFIX, spec).keys)


def test_the_gram_matrix_weighs_every_word_as_one_and_all_padding_as_one(pipeline, cache):
    gram = cache(("cat",)).ordinary_gram(QUICKFIX, ())
    expected = torch.zeros_like(gram)
    for caption in preserve_captions("cat"):
        keys = whole_keys(pipeline, [caption.text])[0]
        words = len(pipeline.tokenizer(caption.text).input_ids)
        expected += keys[1:words].T @ keys[1:words]
        count = POSITIONS - words
        places = [place for place in (1, 4, 16) if place <= count]
        for place, until in zip(places, [*places[1:], count + 1], strict=True):
            key = keys[words - 1 + place]
            expected += (until - place) / count * torch.outer(key, key)
    assert relative(gram, expected) < 1e-6
    kept = cache(("cat",)).preserved(QUICKFIX, "cat")
    assert relative(kept.T @ kept, gram) < 1e-6


def test_names_that_a_removed_concept_stands_in_are_not_preserved(cache):
    keys = cache(("cat", "toy robot", "robots", "house"))
    gram = keys.ordinary_gram(QUICKFIX, ["gun", "robot"])
    assert relative(gram, cache(("cat", "robots", "house")).ordinary_gram(QUICKFIX, ())) < 1e-6


def test_nothing_preserved_is_a_zero_matrix(cache):
    gram = cache(()).ordinary_gram(QUICKFIX, ["cat"])
    assert gram.shape == (HIDDEN, HIDDEN)
    assert not gram.any()


def test_cross_attention_reads_the_prompts_own_embeddings(pipeline, cache):
    spec = EditSpec("e", "pistol", "toy", tokens="last")
    rows = cache().rows(PROMPT, spec).keys.double()
    pairs = caption_pairs(spec)
    embeddings = pipeline.encode_prompt(
        [p.concept.text for p in pairs], "cpu", 1, do_classifier_free_guidance=False
    )[0].double()
    lasts = [e[last_of(pipeline, p.concept)] for e, p in zip(embeddings, pairs, strict=True)]
    keys = torch.stack(lasts)
    assert relative(rows.T @ rows, keys.T @ keys) < 1e-5


def test_an_untraceable_name_is_refused_under_its_own_field(cache):
    long = " ".join(["cat"] * POSITIONS)
    with pytest.raises(ConceptUntraceable) as caught:
        cache().preserved(QUICKFIX, long)
    assert caught.value.param == "spec.preserve"
    with pytest.raises(ConceptUntraceable) as caught:
        cache((long,)).ordinary_gram(QUICKFIX, [])
    assert caught.value.param == "ordinary_captions"
    for field in ("concept", "anchor"):
        names = {"concept": "cat", "anchor": "toy", field: long}
        with pytest.raises(ConceptUntraceable) as caught:
            cache().rows(QUICKFIX, EditSpec("e", **names))
        assert caught.value.param == f"spec.{field}"
