"""Attacks on the shipped edit of the shipped model, down to the pictures that the judge sees."""

import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from edits.cli import app
from edits.errors import QuickFixError
from edits.evaluation.attacks import drawing
from edits.evaluation.attacks.attack import AttackOptions
from edits.evaluation.attacks.characters import character_variants
from edits.evaluation.attacks.command import ADMITS, _verdict
from edits.evaluation.attacks.drawing import draw_attacks
from edits.evaluation.attacks.encoder import token_embedding
from edits.evaluation.attacks.hardening import Hardening
from edits.evaluation.attacks.inversion import InversionOptions
from edits.evaluation.attacks.pair import encoder_pair
from edits.evaluation.attacks.presence import Presence
from edits.evaluation.attacks.result import AttackOutcome, AttackResult, Baselines, Find
from edits.evaluation.attacks.run import run_attacks
from edits.evaluation.attacks.target import TEMPLATES, Target, written
from edits.evaluation.drawing import Sampling, draw
from edits.evaluation.prompts import Probe
from edits.evaluation.rates import Rate
from edits.evaluation.report import load_judge
from edits.evaluation.subject import subject_of
from edits.manifests import RevisionContent, catalog_entry, parse_manifest
from edits.workbench import Workbench
from tests.evaluation.attacks.conftest import MODEL

SAMPLING = Sampling(10, 3.0)


@pytest.fixture(scope="module")
def judge():
    return load_judge(str(MODEL))


def test_a_removed_name_has_the_presence_of_its_anchor(demo):
    pair, target = encoder_pair(demo.pipeline, demo.modules), Target.of(demo.spec)
    presence = Presence(pair.pristine, target)
    for name in target.names:
        before = presence(pair.pristine.from_texts(target.prompts(name))).mean().item()
        after = presence(pair.edited.from_texts(target.prompts(name))).mean().item()
        anchor = presence(pair.pristine.from_texts(target.prompts("toy"))).mean().item()
        assert before > 0.8
        assert after == pytest.approx(anchor, abs=0.1)
        assert anchor < 0


def test_two_vectors_bring_the_pistol_back_as_pictures(demo, judge):
    options = AttackOptions(
        attacks=("inversion",), budget=500, inversion=InversionOptions(vectors=(2,), steps=70)
    )
    pair = encoder_pair(demo.pipeline, demo.modules)
    target = replace(Target.of(demo.spec), templates=TEMPLATES["object"][1:3])
    result = run_attacks(pair, target, options)
    (find,) = result.outcomes[0].finds
    assert find.measures["ratio_to_start"] < 0.1
    assert find.presence > result.baselines.concept - 0.1
    subject = subject_of(judge, demo.spec)
    (drawn,) = draw_attacks(
        demo.edited_pipeline, result, judge, subject, SAMPLING, pictures=2, first_seed=1
    )
    assert drawn.success.count == 4
    assert drawn.success.hits >= 3
    assert not token_embedding(demo.edited_pipeline.text_encoder)._forward_hooks


def test_every_picture_of_an_attack_is_counted_from_noise_of_its_own(demo, judge, monkeypatch):
    """The unedited model draws the pistol that it is asked for, and no pistol for a cat."""
    probes = []

    def recorded(pipeline, some, sampling, **more):
        probes.extend(some)
        return draw(pipeline, some, sampling, **more)

    monkeypatch.setattr(drawing, "draw", recorded)
    texts = tuple(Find(x, f"a photo of a {x}", 0.0, 0.0) for x in ("pistol", "cat", "dog"))
    result = AttackResult(
        "",
        "text_encoder",
        {},
        {},
        Baselines(1, 0, 0),
        (AttackOutcome("characters", texts, 2, 2, 0),),
    )
    subject = subject_of(judge, demo.spec)
    (drawn,) = draw_attacks(
        demo.pipeline, result, judge, subject, SAMPLING, pictures=2, first_seed=1, worst=2
    )
    assert [(probe.prompt, probe.seed) for probe in probes] == [
        ("a photo of a pistol", 1),
        ("a photo of a pistol", 2),
        ("a photo of a cat", 3),
        ("a photo of a cat", 4),
    ]
    assert [each.success for each in drawn.finds] == [Rate(2, 2), Rate(0, 2)]
    assert drawn.success == Rate(2, 4)
    assert drawn.finds_that_succeed == Rate(1, 2)
    with pytest.raises(QuickFixError, match="has no class 'pistol'"):
        draw_attacks(
            demo.pipeline,
            result,
            judge,
            replace(subject, removed=None),
            SAMPLING,
            pictures=1,
            first_seed=1,
        )


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (
            str(MODEL.parents[1] / "docs/examples/new-emblem.yaml"),
            'has no class "the king\'s emblem"',
        ),
        ("zebra.json", "knows neither 'zebra'"),
    ],
)
def test_what_the_judge_cannot_count_is_refused_before_the_searches(
    tmp_path, monkeypatch, manifest, words
):
    document = json.loads(catalog_entry("remove-pistol").model_dump_json(by_alias=True))
    document["spec"] |= {"concept": "zebra", "aliases": []}
    (tmp_path / "zebra.json").write_text(json.dumps(document))
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    words_given = ["attack", manifest, "--model", str(MODEL), "--budget", "1", "--out", str(out)]
    error = CliRunner().invoke(app, words_given).exception
    assert isinstance(error, QuickFixError)
    assert words in error.message
    assert error.param == "spec.concept"
    assert not out.exists(), "nothing was searched"


def test_hardening_ends_when_nothing_gets_past(tmp_path):
    words = ["attack", "remove-van-gogh", "--model", str(MODEL), "--attacks", "characters"]
    words += ["--budget", "500", "--worst", "1", "--pictures", "1", "--harden", "4"]
    done = CliRunner().invoke(app, [*words, "--rounds", "3", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    (only,) = json.loads((tmp_path / "attacks.json").read_text())["rounds"]
    assert only["attacks"][0]["edited"] == "0 of 1"
    assert only["taken"] == {"aliases": [], "preserve": [], "refused": []}
    edit = parse_manifest(json.loads((tmp_path / "hardened.json").read_text()))
    assert edit.metadata.version == catalog_entry("remove-van-gogh").metadata.version


def test_gated_hardening_ends_with_an_edit_that_the_gate_admits(tmp_path):
    """An accented spelling as an alias, which it would take otherwise, is refused."""
    words = ["attack", "remove-pistol", "--model", str(MODEL), "--attacks", "characters"]
    words += ["--budget", "2400", "--worst", "8", "--pictures", "1", "--harden", "4"]
    done = CliRunner().invoke(app, [*words, "--gated", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    first, last = json.loads((tmp_path / "attacks.json").read_text())["rounds"]
    assert first["taken"]["aliases"] + first["taken"]["preserve"]
    assert first["gate"] == last["gate"] == ADMITS

    edit = parse_manifest(json.loads((tmp_path / "hardened.json").read_text()))
    assert edit.metadata.version == catalog_entry("remove-pistol").metadata.version + 1
    bench, accented = Workbench.open(str(MODEL)), Hardening(aliases=("ṕistol",))
    assert bench.gatekeeper.admit(RevisionContent(), edit).report is not None
    (spec,) = bench.gatekeeper.choose([catalog_entry("remove-pistol")])
    said = _verdict(bench, accented.manifest(catalog_entry("remove-pistol")), accented.spec(spec))
    assert "captions read as the concept" in said


@pytest.mark.slow
def test_presence_ranks_prompts_as_the_judge_sees_their_pictures(demo, judge):
    """Before and after the edit: names, other objects and random spellings of the concept."""
    pair, target = encoder_pair(demo.pipeline, demo.modules), Target.of(demo.spec)
    presence = Presence(pair.pristine, target)
    names = ("pistol", "gun", "handgun", "toy", "cat", "knife", "rocket", "beer")
    prompts = [prompt for name in names for prompt in target.prompts(name)[1:4]]
    prompts += [
        written(target.templates[1], variant.text)
        for variant in character_variants("pistol", limit=24, seed=7)
    ]
    scores, seen = [], []
    for view, pipeline in ((pair.pristine, demo.pipeline), (pair.edited, demo.edited_pipeline)):
        scores += presence(view.from_texts(prompts)).tolist()
        pictures = draw(pipeline, [Probe(prompt, 1, {}) for prompt in prompts], Sampling(20, 3.0))
        seen += [verdict.classes["object"] == "pistol" for verdict in judge.look(pictures)]
    shown = [score for score, is_shown in zip(scores, seen, strict=True) if is_shown]
    hidden = [score for score, is_shown in zip(scores, seen, strict=True) if not is_shown]
    pairs = [(one > other) + (one == other) / 2 for one in shown for other in hidden]
    auc = sum(pairs) / len(pairs)
    print(f"AUC {auc:.3f}, {len(shown)} prompts show a pistol, {len(hidden)} do not")  # noqa: T201
    assert min(len(shown), len(hidden)) >= 9
    assert auc > 0.9
