"""Counts must be those of what was drawn: the pipelines paint by rule, the judge is never wrong."""

import numpy as np
import pytest
import torch
from torch import nn

from edits.evaluation.document import evaluation_document
from edits.evaluation.drawing import Sampling, draw
from edits.evaluation.drift import PICTURES, empty_prompt_drift
from edits.evaluation.judge import pixels_of
from edits.evaluation.measure import measure
from edits.evaluation.observe import observe
from edits.evaluation.prompts import Probe
from edits.evaluation.rates import Change, Rate
from edits.evaluation.scorer import ClipScorer, ImageTower, clip_scores
from edits.evaluation.suite import edit_suite
from edits.evaluation.text_features import end_of_text
from edits.method import Editor, EditSpec, with_components

from ..tiny_pipeline import HIDDEN, build_pipeline
from .painted import ReadingJudge, painted

JUDGE = ReadingJudge()
SAMPLING = Sampling(steps=2, guidance_scale=3.0)
PISTOL = EditSpec("remove-pistol", "pistol", "star")
KING = EditSpec("new-emblem", "the king's emblem", "star", kind="fact")
VAN_GOGH = EditSpec("remove-van-gogh", "van gogh", "photo", kind="style")


def evaluated(*specs, after, before=None, kinds=("name", "objects"), targets=10, **options):
    old, new = painted(before), painted(after)
    suite = edit_suite(old, JUDGE, specs, targets=targets, each=4, kinds=kinds)
    return measure(old, new, JUDGE, suite, SAMPLING, **options)


def no_pistols(_prompt, seed, shown):
    """The pistol becomes a star, but for every tenth seed, and a robot for every fifth."""
    if shown["object"] != "pistol" or seed % 10 == 0:
        return shown
    return {**shown, "object": "robot" if seed % 5 == 0 else "star"}


def test_a_removal_is_scored_by_what_is_left_and_shows_what_came_instead():
    result = evaluated(PISTOL, after=no_pistols)
    (target,) = result.targets
    assert target.change == Change(both=1, lost=9, gained=0, neither=0)
    assert result.target_rate == target.failed == Rate(1, 10)
    assert target.other == ("star", Change(both=0, lost=0, gained=8, neither=2))
    assert [(s.name, s.before, s.after) for s in target.seen] == [
        ("star", 0, 8), ("pistol", 10, 1), ("robot", 0, 1)
    ]  # fmt: skip
    assert result.max_drop == 0
    assert result.retained[0].worst is None


def test_the_worst_pictures_come_first():
    (target,) = evaluated(PISTOL, after=no_pistols).targets
    assert target.pairs[0].probe.seed == 7000
    assert [pair.harm for pair in target.pairs] == [1.0] + 9 * [0.0]
    assert target.pairs[0].classes == ("pistol", "pistol")


def test_a_drop_names_the_class_that_fell_most_and_its_pictures():
    def careless(prompt, seed, shown):
        shown = no_pistols(prompt, seed, shown)
        if shown["object"] == "knife" or (shown["object"] == "dog" and seed % 2):
            return {**shown, "object": "star"}
        return shown

    result = evaluated(PISTOL, after=careless)
    (objects,) = result.retained
    dogs = sum(p.seed % 2 for p in objects.group.probes if p.wanted["object"] == "dog")
    assert objects.change == Change(both=16 - dogs, lost=4 + dogs, gained=0, neither=0)
    assert objects.worst == ("knife", Change(0, 4, 0, 0))
    assert result.worst_retained is objects
    assert result.max_drop == pytest.approx((4 + dogs) / 20)
    gone, stays = 0.9, (16 - dogs) / 20
    assert result.harmonic_mean == pytest.approx(2 * gone * stays / (gone + stays))
    assert {pair.probe.wanted["object"] for pair in objects.pairs[: 4 + dogs]} <= {"knife", "dog"}


def test_a_fact_is_scored_by_the_rise_of_its_anchor():
    def new_emblem(prompt, seed, shown):
        return {**shown, "object": "star"} if "emblem" in prompt and seed != 7003 else shown

    result = evaluated(KING, after=new_emblem)
    (target,) = result.targets
    assert target.change == Change(both=0, lost=0, gained=9, neither=1)
    assert result.target_rate == Rate(1, 10)  # the pictures that do not show the anchor
    assert target.other is None
    assert target.pairs[0].probe.seed == 7003
    document = evaluation_document(result)["targets"][0]
    assert (document["scored_by"], document["removed"]) == ("anchor", None)
    assert document["anchor"]["after"]["hits"] == 9


def test_a_facts_old_class_falls_where_the_judge_knows_it():
    result = evaluated(EditSpec("x", "pistol", "star", kind="fact"), after=no_pistols)
    (target,) = result.targets
    assert target.change.after == Rate(8, 10)
    assert target.other == ("pistol", Change(both=1, lost=9, gained=0, neither=0))
    assert result.target_rate == Rate(2, 10)


def test_of_several_edits_the_worst_by_name_is_the_target_rate():
    def one_works(_prompt, _seed, shown):
        return {**shown, "object": "star"} if shown["object"] == "pistol" else shown

    result = evaluated(PISTOL, VAN_GOGH, after=one_works)
    rates = result.target_rates()
    assert rates == {"remove-pistol/name": Rate(0, 10), "remove-van-gogh/name": Rate(10, 10)}
    assert result.target_rate == Rate(10, 10)


def test_the_worst_way_of_asking_is_found_among_all_groups_of_all_edits():
    def no_plain_pistols(prompt, seed, shown):
        return shown if "pistols" in prompt and seed % 4 else no_pistols(prompt, 1, shown)

    result = evaluated(PISTOL, after=no_plain_pistols, kinds=("name", "plural", "twice"))
    plural = next(g for g in result.targets if g.group.kind == "plural")
    assert result.worst_target is plural
    assert result.target_rate == Rate(0, 10)
    assert plural.failed == Rate(sum(p.seed % 4 > 0 for p in plural.group.probes), 10)
    document = evaluation_document(result)["worst_target"]
    assert (document["edit"], document["group"]) == ("remove-pistol", "plural")


def test_what_a_removed_style_depicts_is_counted_on_the_styles_own_pictures():
    def plain_cats(_prompt, _seed, shown):
        return {**shown, "style": "photo", "object": "cat"} if shown["style"] != "photo" else shown

    result = evaluated(VAN_GOGH, after=plain_cats, kinds=("name", "depicted", "styles"))
    assert result.target_rate == Rate(0, 10)
    depicted = next(g for g in result.retained if g.group.kind == "depicted")
    cats = sum(p.wanted["object"] == "cat" for p in depicted.group.probes)
    assert depicted.change.after == Rate(cats, 10)
    styles = next(g for g in result.retained if g.group.kind == "styles")
    assert styles.worst == ("hokusai", Change(0, 10, 0, 0))
    assert result.worst_retained is styles


def test_colours_are_counted_on_every_retained_picture():
    def faded(_prompt, seed, shown):
        return {**shown, "colour": "red"} if seed % 2 else shown

    result = evaluated(PISTOL, after=faded, kinds=("name", "objects", "styles", "colours"))
    colours = next(g for g in result.retained if g.group.kind == "colours")
    lost = sum(p.seed % 2 and p.wanted["colour"] == "blue" for p in colours.group.probes)
    assert colours.change.lost == lost > 0
    assert colours.change.count == 20 + 10
    assert colours.worst == ("blue", Change(colours.change.both - 15, lost, 0, 0))


def test_what_the_unedited_model_gets_wrong_is_reported_by_class():
    def no_robots(_prompt, _seed, shown):
        return {**shown, "object": "cat"} if shown["object"] == "robot" else shown

    result = evaluated(PISTOL, before=no_robots, after=no_pistols)
    objects = result.unedited["object"]
    assert objects["robot"] == Rate(4, 4)
    assert objects["pistol"] == Rate(0, 10)
    assert evaluation_document(result)["judge"]["unedited"]["object"]["hits"] == 4


def test_pictures_seen_before_are_not_drawn_again_and_change_no_figure():
    old, new = painted(), painted(no_pistols)
    suite = edit_suite(old, JUDGE, [PISTOL], targets=10, each=4, kinds=("name", "objects"))
    before = observe(old, suite.probes, SAMPLING, JUDGE)
    seen: list[int] = []
    first = measure(old, new, JUDGE, suite, SAMPLING, progress=seen.append)
    assert sum(seen) == 2 * len(suite.probes)
    drawn = old.drawn
    again = measure(old, new, JUDGE, suite, SAMPLING, before=before)
    assert old.drawn == drawn + PICTURES  # those of the empty prompt
    assert [g.change for g in again.groups] == [g.change for g in first.groups]


def test_no_pictures_by_name_are_no_target_rate():
    with pytest.raises(ValueError, match="needs the group 'name'"):
        _ = evaluated(PISTOL, after=no_pistols, kinds=("typo",)).target_rate


def test_clip_scores_are_the_cosines_of_pictures_and_the_clean_captions():
    torch.manual_seed(0)
    scorer = ClipScorer(ImageTower(8), nn.Linear(HIDDEN, 8, bias=False)).eval()
    result = evaluated(PISTOL, after=no_pistols, kinds=("typo",), scorer=scorer)
    (target,) = result.targets
    probes = target.group.probes
    old, new = painted(), painted(no_pistols)
    for field, name in (("caption", "concept"), ("anchor_caption", "anchor")):
        hidden = end_of_text(old, [getattr(probe, field) for probe in probes])
        for pipeline, side in ((old, "before"), (new, "after")):
            pixels = pixels_of(draw(pipeline, probes, SAMPLING))
            expected = clip_scores(scorer, pixels, hidden).mean().item()
            assert getattr(target.clip[name], side).value == pytest.approx(expected, abs=1e-6)
    assert result.clip["target, concept's caption"] == target.clip["concept"]


def test_the_empty_prompt_does_not_drift_under_no_edit():
    pipeline = build_pipeline()
    drift = empty_prompt_drift(pipeline, with_components(pipeline, {}), SAMPLING, seed=1)
    assert (drift.max_abs, drift.relative, drift.max_pixel) == (0.0, 0.0, 0)
    assert drift.identical == drift.pictures == PICTURES


def test_drift_is_the_difference_of_diffusers_own_embeddings():
    pipeline, other = build_pipeline(), build_pipeline()
    with torch.no_grad():
        other.text_encoder.final_layer_norm.bias += 0.01
    drift = empty_prompt_drift(pipeline, other, SAMPLING, seed=1)
    old, new = (p.encode_prompt("", "cpu", 1, False)[0].double() for p in (pipeline, other))
    assert drift.max_abs == (new - old).abs().max().item() == pytest.approx(0.01, rel=1e-4)
    assert drift.relative == pytest.approx(float((new - old).norm() / old.norm()))
    assert drift.max_pixel > 0


def test_prompts_are_normalised_before_they_are_drawn():
    pipeline = build_pipeline()
    spelled = [Probe(text, 5, {}) for text in ("a photo of a pistol", "a photo of a p\u200bistol")]
    plain, hidden = (np.asarray(picture) for picture in draw(pipeline, spelled, SAMPLING))
    assert np.array_equal(plain, hidden)


def test_the_edited_pipeline_draws_with_the_edited_encoder():
    pipeline = build_pipeline()
    editor = Editor(pipeline)
    edited = with_components(pipeline, editor.apply(editor.compose([PISTOL])))
    probes = [Probe("a photo of a pistol", 3, {})]
    before, after = (np.asarray(draw(p, probes, SAMPLING)[0]) for p in (pipeline, edited))
    assert not np.array_equal(before, after)
