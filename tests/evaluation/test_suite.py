"""Which prompts an edit is examined on."""

from dataclasses import replace

import pytest
import torch

from edits.errors import QuickFixError
from edits.evaluation.groups import KINDS, RETAINED_KINDS, TARGET_KINDS
from edits.evaluation.prompts import fill, with_article
from edits.evaluation.subject import subject_of
from edits.evaluation.suite import edit_suite, nearest_names
from edits.evaluation.target import unseen_templates
from edits.evaluation.templates import TEMPLATES
from edits.evaluation.text_features import end_of_text
from edits.method import EditSpec
from edits.method.captions import caption_pairs

from .painted import CLASSES, ReadingJudge, painted

JUDGE = ReadingJudge()
PISTOL = EditSpec("remove-pistol", "pistol", "toy", aliases=("gun", "handgun"))
VAN_GOGH = EditSpec("remove-van-gogh", "van gogh", "photo", kind="style")
KING = EditSpec("new-emblem", "the king's emblem", "star", kind="fact")


@pytest.fixture(scope="module")
def pipeline():
    return painted()


def suite_of(pipeline, *specs, **options):
    return edit_suite(pipeline, JUDGE, specs, **{"targets": 12, "each": 2, **options})


def test_one_edit_is_asked_for_in_every_way_and_every_alias_is_a_group(pipeline):
    suite = suite_of(pipeline, PISTOL)
    targets = [g for g in suite.groups if g.role == "target"]
    assert [g.name for g in targets] == [
        "name", "alias gun", "alias handgun", "unseen", "mid-sentence", "twice", "possessive",
        "plural", "typo", "spacing", "case", "homoglyph",
    ]  # fmt: skip
    assert {g.kind for g in targets} == set(TARGET_KINDS)
    assert {len(g.probes) for g in targets} == {12}
    for group in targets:
        assert {p.wanted["object"] for p in group.probes} == {"pistol"}


def test_prompts_say_what_their_group_says(pipeline):
    by_name = {g.name: g for g in suite_of(pipeline, PISTOL).groups}
    for probe in by_name["mid-sentence"].probes:
        before, _, after = probe.prompt.partition("pistol")
        assert len(before.split()) >= 3
        assert len(after.split()) >= 3
    assert all(p.prompt.count("pistol") == 2 for p in by_name["twice"].probes)
    assert all("pistol's" in p.prompt for p in by_name["possessive"].probes)
    assert all("pistols" in p.prompt for p in by_name["plural"].probes)
    assert all("handgun" in p.prompt for p in by_name["alias handgun"].probes)
    assert not any("pistol" in p.prompt for p in by_name["typo"].probes)
    assert all("pistol" in p.caption for p in by_name["typo"].probes)
    assert all("toy" in p.anchor_caption for p in by_name["typo"].probes)


@pytest.mark.parametrize("spec", [PISTOL, VAN_GOGH, KING], ids=lambda spec: spec.name)
def test_unseen_templates_have_words_before_the_concept_that_no_caption_has(pipeline, spec):
    captions = [pair.concept for pair in caption_pairs(spec)]
    seen = {caption.text[: caption.start] for caption in captions}
    (group,) = (g for g in suite_of(pipeline, spec).groups if g.kind == "unseen")
    assert len({p.prompt.partition(spec.concept)[0] for p in group.probes}) >= 5
    assert not {p.prompt.partition(spec.concept)[0] for p in group.probes} & seen


def test_a_template_that_captions_begin_with_is_left_out_and_none_left_is_refused():
    subject = subject_of(JUDGE, PISTOL)
    kept = unseen_templates(subject, ("a photo of {ax} on {colour}", "look, {ax} on {colour}"))
    assert kept == ("look, {ax} on {colour}",)
    with pytest.raises(ValueError, match="begin as all"):
        unseen_templates(subject, ("a photo of {ax} on {colour}",))


def test_what_is_removed_is_retained_nowhere_and_everything_else_is(pipeline):
    suite = suite_of(pipeline, PISTOL, VAN_GOGH)
    retained = {g.name: g for g in suite.groups if g.role == "retained"}
    objects = {p.wanted["object"] for p in retained["objects"].probes}
    assert objects == set(CLASSES["object"]) - {"pistol"}
    assert {p.wanted["style"] for p in retained["styles"].probes} == {"hokusai"}
    assert all("pistol" not in p.prompt for g in retained.values() for p in g.probes)
    depicted = retained["depicted"]
    assert depicted.attribute == "object"
    assert all("van gogh" in p.prompt for p in depicted.probes)
    assert "pistol" not in {p.wanted["object"] for p in depicted.probes}


def test_a_class_gets_each_pictures_and_a_group_targets(pipeline):
    few = {g.name: g for g in suite_of(pipeline, PISTOL, targets=11, each=2).groups}
    assert len(few["objects"].probes) == 5 * 3  # 11 pictures of 5 classes need 3 of each
    many = {g.name: g for g in suite_of(pipeline, PISTOL, targets=11, each=7).groups}
    assert len(many["objects"].probes) == 5 * 7


def test_colours_are_judged_on_all_retained_pictures_and_depicted_objects_on_the_targets(pipeline):
    suite = suite_of(pipeline, VAN_GOGH)
    groups = {g.name: g for g in suite.groups}
    drawn = [p.key for name in ("objects", "neighbours", "styles") for p in groups[name].probes]
    assert sorted(p.key for p in groups["colours"].probes) == sorted(drawn)
    assert [p.key for p in groups["depicted"].probes] == [p.key for p in groups["name"].probes]
    assert len(suite.probes) == len({p.key for g in suite.groups for p in g.probes})


@pytest.mark.parametrize("kind", KINDS)
def test_a_groups_pictures_do_not_depend_on_what_else_is_chosen(pipeline, kind):
    alone = [g for g in suite_of(pipeline, VAN_GOGH, kinds=(kind,)).groups if g.kind == kind]
    among = [g for g in suite_of(pipeline, VAN_GOGH).groups if g.kind == kind]
    if kind == "colours":  # of whatever is drawn: alone, of the plain objects
        alone = [replace(alone[0], probes=among[0].probes)]
    assert alone == among


def test_different_groups_and_edits_have_different_seeds(pipeline):
    groups = suite_of(pipeline, PISTOL, VAN_GOGH).groups
    seeds = [{p.seed for p in g.probes} for g in groups if g.kind not in ("colours", "depicted")]
    assert sum(map(len, seeds)) == len(set().union(*seeds))


def test_an_alias_that_the_judge_knows_stands_for_the_concept():
    subject = subject_of(JUDGE, EditSpec("x", "sidearm", "star", aliases=("gat", "pistol")))
    assert (subject.removed, subject.anchor, subject.attribute) == ("pistol", "star", "object")


def test_a_fact_is_scored_by_its_anchor_and_needs_no_known_concept():
    subject = subject_of(JUDGE, KING)
    assert (subject.counted, subject.removed, subject.form) == ("star", None, "fact")
    moon = subject_of(JUDGE, EditSpec("x", "cat", "star", kind="fact"))
    assert (moon.counted, moon.removed) == ("star", "cat")


@pytest.mark.parametrize(
    ("spec", "param", "word"),
    [
        (EditSpec("x", "sidearm", "star", aliases=("gat",)), "spec.concept", "'gat'"),
        (EditSpec("x", "the king's emblem", "crown", kind="fact"), "spec.anchor", "'crown'"),
        (EditSpec("x", "photo", "hokusai", kind="style"), "spec.concept", "without a style"),
    ],
)
def test_what_the_judge_cannot_score_is_refused_by_field(spec, param, word):
    with pytest.raises(QuickFixError, match=word) as refused:
        subject_of(JUDGE, spec)
    assert refused.value.param == param


def test_a_fact_removes_its_old_class_only_where_the_judge_knows_it(pipeline):
    retained = {g.name: g for g in suite_of(pipeline, KING).groups if g.role == "retained"}
    assert {p.wanted["object"] for p in retained["objects"].probes} == set(CLASSES["object"])


def test_unknown_groups_and_repeated_names_are_refused(pipeline):
    with pytest.raises(QuickFixError, match=r"no group 'nmae'.*name, alias"):
        suite_of(pipeline, PISTOL, kinds=("nmae",))
    with pytest.raises(QuickFixError, match="different names"):
        suite_of(pipeline, PISTOL, PISTOL)
    with pytest.raises(QuickFixError, match="different names"):
        suite_of(pipeline)


def test_nearest_names_are_those_of_the_largest_centred_cosine(pipeline):
    names = ["cat", "knife", "robot", "beer", "gun"]
    ids = [pipeline.tokenizer(n, padding="max_length", return_tensors="pt") for n in names]
    with torch.no_grad():
        hidden = [pipeline.text_encoder(i.input_ids).last_hidden_state[0] for i in ids]
    ends = torch.stack([h[i.attention_mask.sum() - 1] for h, i in zip(hidden, ids, strict=True)])
    centred = ends - ends[1:].mean(0)
    cosines = [torch.cosine_similarity(centred[0], row, dim=0).item() for row in centred[1:]]
    expected = sorted(names[1:], key=lambda n: -cosines[names.index(n) - 1])
    assert nearest_names(pipeline, "cat", names[1:], 3) == tuple(expected[:3])
    assert torch.allclose(end_of_text(pipeline, names), ends, atol=1e-5)


def test_every_form_of_concept_has_every_phrasing_with_its_placeholder():
    phrasings = {"name", "unseen", "mid-sentence", "twice", "possessive", "plural"}
    for form, templates in TEMPLATES.items():
        assert set(templates) == phrasings, form
        for name, sentences in templates.items():
            for sentence in sentences:
                text = fill(sentence, "QQ", colour="red", thing="owl")
                assert text.count("QQ") == (2 if name == "twice" else 1), sentence
                assert "red" in text
                assert ("owl" in text) == (form == "style")


def test_articles_follow_the_sound_and_determined_names_take_none():
    assert with_article("umbrella") == "an umbrella"
    assert with_article("pistol") == "a pistol"
    assert with_article("the king's emblem") == "the king's emblem"
    assert with_article("king's emblem") == "king's emblem"


def test_kinds_are_named_once():
    assert len(KINDS) == len(TARGET_KINDS) + len(RETAINED_KINDS) == len(set(KINDS))
