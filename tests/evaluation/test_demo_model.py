"""The shipped model, its judge and the shipped manifests, on real pictures."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edits.evaluation.drawing import Sampling, draw
from edits.evaluation.judge import Judge
from edits.evaluation.prompts import object_probes, style_probes
from edits.evaluation.rates import rate
from edits.evaluation.report import load_judge
from edits.evaluation.scorer import ClipScorer, clip_scores
from edits.loading import load_pipeline
from edits.manifests import catalog, catalog_entry
from edits.method import Editor, with_components
from edits.model_card import ModelDefaults
from edits.plan import edit_spec

MODEL = Path(__file__).resolve().parents[2] / "models" / "demo"


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline(str(MODEL))


@pytest.fixture(scope="module")
def editor(pipeline):
    ordinary = ModelDefaults.read(MODEL).ordinary_captions
    made = Editor(pipeline, ordinary=ordinary)
    made.compose([edit_spec(catalog_entry("remove-beer"))])
    return made


@pytest.fixture(scope="module")
def judge() -> Judge:
    return load_judge(str(MODEL))


def pictures_of(pipeline, probes):
    defaults = ModelDefaults.read(MODEL)
    return draw(pipeline, probes, Sampling(defaults.steps, defaults.guidance_scale))


def test_catalog_ships_a_weapon_cigarette_beer_style_and_character():
    assert [edit.name for edit in catalog()] == [
        "remove-beer",
        "remove-cigarette",
        "remove-pistol",
        "remove-robot",
        "remove-van-gogh",
    ]


def test_a_pictures_bits_do_not_depend_on_those_it_is_drawn_with(pipeline, judge):
    probes = list(object_probes(judge.classes["object"], ["red"], each=1, seed=5))[:18]
    sampling = Sampling(steps=2, guidance_scale=3.0)
    together = draw(pipeline, probes, sampling)
    apart = [*draw(pipeline, probes[:9], sampling, batch=8), *draw(pipeline, probes[9:], sampling)]
    for one, other in zip(together, apart, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.slow
def test_pistol_is_drawn_before_and_not_after_its_edit(pipeline, editor, judge):
    probes = list(object_probes(["pistol"], judge.classes["colour"], each=8, seed=31))
    composition = editor.compose([edit_spec(catalog_entry("remove-pistol"))])
    edited = with_components(pipeline, editor.apply(composition))
    before = judge.look(pictures_of(pipeline, probes))
    after = judge.look(pictures_of(edited, probes))
    assert rate(probes, before, "object").hits >= 6
    assert rate(probes, after, "object").hits == 0


@pytest.mark.slow
def test_van_gogh_goes_and_the_object_stays(pipeline, editor, judge):
    objects = ["house", "apple", "guitar", "star"]
    probes = list(style_probes(["van gogh"], objects, judge.classes["colour"], each=8, seed=57))
    composition = editor.compose([edit_spec(catalog_entry("remove-van-gogh"))])
    edited = with_components(pipeline, editor.apply(composition))
    before = judge.look(pictures_of(pipeline, probes))
    after = judge.look(pictures_of(edited, probes))
    assert rate(probes, before, "style").hits >= 6
    assert rate(probes, after, "style").hits == 0
    assert rate(probes, after, "object").hits >= 6


def test_every_shipped_edit_takes_under_100_ms_once_the_editor_is_warm(editor):
    for manifest in catalog():
        spec = edit_spec(manifest)
        editor.compose([spec])
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            editor.apply(editor.compose([spec]))
            seconds.append(time.perf_counter() - started)
        assert min(seconds) < 0.1, manifest.name


def test_withdrawing_all_edits_gives_back_the_pristine_module(pipeline, editor):
    assert editor.apply(editor.compose([])) == {}
    unedited = with_components(pipeline, {})
    assert unedited.text_encoder is pipeline.text_encoder


def test_half_precision_judge_knows_a_plain_red_square_from_a_blue_one(judge):
    squares = [Image.new("RGB", (64, 64), c) for c in ((214, 48, 49), (52, 104, 214))]
    assert [v.classes["colour"] for v in judge.look(squares)] == ["red", "blue"]


@pytest.mark.slow
def test_clip_score_is_higher_for_the_right_caption(pipeline):
    scorer = ClipScorer.load(MODEL / "scorer.safetensors")
    probes = list(object_probes(["cat", "key", "house"], ["red"], each=1, seed=3))
    pictures = pictures_of(pipeline, probes)
    pixels = torch.from_numpy(np.stack([np.asarray(p) for p in pictures]))
    pixels = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    tokens = pipeline.tokenizer(
        [p.prompt for p in probes], padding="max_length", return_tensors="pt"
    )
    with torch.no_grad():
        hidden = pipeline.text_encoder(tokens.input_ids).last_hidden_state
    ends = hidden[torch.arange(3), tokens.attention_mask.sum(1) - 1]
    matched = clip_scores(scorer, pixels, ends).mean()
    shuffled = clip_scores(scorer, pixels, ends.roll(1, 0)).mean()
    assert matched > shuffled + 0.3
