"""A run must be the same whether or not it was interrupted, and never mixed up with another."""

import json
from dataclasses import replace

import pytest

from edits.errors import QuickFixError
from edits.evaluation.attacks.attack import AttackOptions, Scene
from edits.evaluation.attacks.encoder import EncoderView
from edits.evaluation.attacks.genetic import GeneticOptions
from edits.evaluation.attacks.gradient import GradientOptions
from edits.evaluation.attacks.inversion import InversionOptions
from edits.evaluation.attacks.journal import FILE_NAME
from edits.evaluation.attacks.pair import EncoderPair, encoder_pair
from edits.evaluation.attacks.presence import Presence
from edits.evaluation.attacks.result import AttackOutcome
from edits.evaluation.attacks.run import run_attacks, run_identity
from tests.evaluation.attacks.conftest import TARGET, halved
from tests.tiny_layouts import build_sdxl

OPTIONS = AttackOptions(
    budget=500,
    worst=3,
    sample=12,
    genetic=GeneticOptions(population=20, generations=5, runs=2, length=3),
    gradient=GradientOptions(length=3, candidates=16, batch=16),
    inversion=InversionOptions(vectors=(1, 2), steps=4),
)


def timeless(outcomes):
    return [replace(outcome, seconds=0.0) for outcome in outcomes]


@pytest.fixture(scope="module")
def result(pair):
    return run_attacks(pair, TARGET, OPTIONS)


def test_every_attack_keeps_its_worst_finds_most_presence_first(result):
    assert [outcome.attack for outcome in result.outcomes] == list(OPTIONS.attacks)
    for outcome in result.outcomes:
        scores = [find.presence for find in outcome.finds]
        assert len(scores) == {"inversion": 2, "spellings": OPTIONS.sample}.get(outcome.attack, 3)
        if outcome.attack not in ("inversion", "spellings"):
            assert scores == sorted(scores, reverse=True)
        assert outcome.passes <= OPTIONS.budget + 100  # references and the finds' own scores


def test_scores_are_the_presence_of_the_prompts(pair, result):
    presence = Presence(pair.pristine, TARGET)
    for outcome in result.outcomes:
        for find in outcome.finds:
            if find.vectors:
                continue
            texts = [find.prompt]
            edited = presence(pair.edited.from_texts(texts)).item()
            pristine = presence(pair.pristine.from_texts(texts)).item()
            assert find.presence == pytest.approx(edited, abs=1e-5)
            assert find.pristine == pytest.approx(pristine, abs=1e-5)


def test_baselines_are_those_of_the_names(pair, result):
    scene = Scene(pair, TARGET, Presence(pair.pristine, TARGET), OPTIONS)
    scores = scene.score(TARGET.prompts("pistol"))
    assert result.baselines.removed == pytest.approx(sum(scores) / 2)
    assert result.baselines.anchor < result.baselines.removed < result.baselines.concept


def test_sampled_spellings_are_drawn_by_the_seed_and_not_by_their_score(pair, result):
    sampled = result.outcomes[0].finds
    others = run_attacks(pair, TARGET, replace(OPTIONS, attacks=("spellings",), seed=1)).outcomes[0]
    assert len({find.prompt for find in sampled}) == OPTIONS.sample
    assert {find.prompt for find in sampled} != {find.prompt for find in others.finds}
    assert len({find.family for find in sampled}) > 3
    assert all(find.name not in TARGET.names for find in sampled)


def test_searched_spellings_are_scored_in_the_template_that_serves_them_best(pair, result):
    scene = Scene(pair, TARGET, Presence(pair.pristine, TARGET), OPTIONS)
    for find in result.outcomes[1].finds:
        prompts = [t.replace("{ax}", f"a {find.name}").replace("{x}", find.name)
                   for t in TARGET.templates]  # fmt: skip
        fitting = [p for p, ids in zip(prompts, pair.edited.words(prompts), strict=True)
                   if len(ids) <= pair.edited.word_limit]  # fmt: skip
        assert find.prompt in prompts
        assert find.presence == pytest.approx(max(scene.score(fitting)), abs=1e-5)


def test_a_run_that_goes_on_finds_what_an_uninterrupted_one_does(pair, result, tmp_path):
    class Killed(Exception):
        pass

    def kill_after_two(outcome):
        if outcome.attack == OPTIONS.attacks[1]:
            raise Killed

    with pytest.raises(Killed):
        run_attacks(pair, TARGET, OPTIONS, out=tmp_path, on_attack=kill_after_two)
    lines = (tmp_path / FILE_NAME).read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    (tmp_path / FILE_NAME).write_bytes(b"".join(lines)[:-5])
    before = pair.passes
    again = run_attacks(pair, TARGET, OPTIONS, out=tmp_path)
    assert timeless(again.outcomes) == timeless(result.outcomes)
    first = result.outcomes[0].passes
    whole = sum(outcome.passes for outcome in result.outcomes)
    assert pair.passes - before < whole - first + 50  # the first attack was not run again
    before = pair.passes
    assert run_attacks(pair, TARGET, OPTIONS, out=tmp_path).outcomes == again.outcomes
    assert pair.passes - before < 50


def test_a_folder_of_another_run_is_refused_and_left_alone(pair, tmp_path):
    options = replace(OPTIONS, attacks=("characters",))
    run_attacks(pair, TARGET, options, out=tmp_path)
    before = (tmp_path / FILE_NAME).read_bytes()
    others = [
        (pair, TARGET, replace(options, seed=1)),
        (pair, replace(TARGET, anchor="cat"), options),
        (EncoderPair(pair.edited, pair.pristine), TARGET, options),
    ]
    for other in others:
        with pytest.raises(QuickFixError, match="other options, or on another edit or model"):
            run_attacks(*other, out=tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_identity_tells_weights_apart_and_not_objects(pair, tiny):
    twin = EncoderPair(EncoderView(tiny.text_encoder, tiny.tokenizer), pair.edited)
    assert run_identity(twin, TARGET, OPTIONS) == run_identity(pair, TARGET, OPTIONS)
    unedited = EncoderPair(twin.pristine, twin.pristine)
    assert run_identity(unedited, TARGET, OPTIONS) != run_identity(pair, TARGET, OPTIONS)


def test_outcomes_come_back_from_their_json(result):
    for outcome in result.outcomes:
        written = json.loads(json.dumps(outcome.document()))
        assert AttackOutcome.of(written) == outcome
    document = json.loads(json.dumps(result.document()))
    assert document["presence"]["concept"] == result.baselines.concept
    assert len(document["attacks"][-1]["finds"][1]["vectors"]) == 2


def test_options_that_attack_nothing_are_refused():
    with pytest.raises(ValueError, match="unknown attacks"):
        AttackOptions(attacks=("magic",))
    with pytest.raises(ValueError, match="budget of at least"):
        AttackOptions(budget=10)


def test_the_second_encoder_of_sdxl_is_attacked_by_itself():
    pipeline = build_sdxl()
    modules = {name: halved(getattr(pipeline, name)) for name in ("text_encoder", "text_encoder_2")}
    pair = encoder_pair(pipeline, modules, "text_encoder_2")
    result = run_attacks(pair, TARGET, OPTIONS)
    assert result.component == "text_encoder_2"
    assert all(outcome.finds for outcome in result.outcomes)
    (vector, *_) = result.outcomes[-1].finds[0].vectors
    assert len(vector) == pipeline.text_encoder_2.config.hidden_size
