"""When a site is called causal, and where an edit would act for it."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from edits.cli import app
from edits.errors import TraceInvalid, TraceSiteUnknown
from edits.manifests import catalog_entry
from edits.method import PRESETS, QUICKFIX
from edits.model_card import ModelDefaults, write_default_sites
from edits.plan import edit_spec
from edits.tracing.causal import edit_site, verdict
from edits.tracing.effects import effects
from edits.tracing.layout import Layout
from edits.tracing.result import read_result, write_result
from tests.tiny_layouts import build_layout

ATTENTION = "text_encoder.layers.0.self_attn@later"
SAME_LAYER = "text_encoder.layers.0.self_attn@last"
MLP = "text_encoder.layers.1.mlp@later"
STREAM = "text_encoder.layers.0.residual@later"
NAMES = ("clean", "corrupted", ATTENTION, SAME_LAYER, MLP, STREAM)


def scores(*indirect, spread=0.02, prompts=12):
    """(prompts, 2 seeds, 1 draw, conditions): clean 1, corrupted 0, sites as given, with noise."""
    rng = np.random.default_rng(0)
    means = np.array([1.0, 0.0, *indirect])
    noise = rng.normal(0, spread, (prompts, 2, 1, len(means)))
    noise[..., :2] = 0
    return means + noise


def judged(array, **options):
    return verdict(array, NAMES, effects(array, NAMES), resamples=500, **options)


def test_a_site_far_above_all_others_is_causal():
    found = judged(scores(0.9, 0.2, 0.3, 0.1))
    assert found.site == ATTENTION
    assert found.runner_up == MLP
    assert found.is_causal


def test_a_site_with_an_equal_one_beside_it_is_not_causal():
    found = judged(scores(0.9, 0.2, 0.9, 0.1, spread=0.1))
    assert not found.is_causal
    assert found.excludes_zero
    assert not found.excludes_runner_up


def test_a_site_whose_interval_reaches_zero_is_not_causal():
    found = judged(scores(0.01, -0.5, -0.5, -0.5, spread=0.2))
    assert not found.excludes_zero
    assert not found.is_causal


def test_one_prompt_proves_nothing():
    assert not judged(scores(0.9, 0.2, 0.3, 0.1, prompts=1)).is_causal


def test_sites_that_draw_the_same_pictures_are_one_site():
    array = scores(0.9, 0.2, 0.3, 0.1)
    array[..., 5] = array[..., 2]
    assert judged(array).runner_up == MLP
    assert judged(array).is_causal


def test_for_edits_positions_of_one_layer_are_one_site_and_the_stream_is_none():
    array = scores(0.9, 0.89, 0.3, 0.95)
    found = judged(array, editable_only=True)
    assert found.site == ATTENTION
    assert found.runner_up == MLP
    assert found.is_causal


@pytest.mark.parametrize("layout", ["sd-1.x", "sd-2.x", "sdxl"])
def test_the_edit_site_is_the_output_projection_by_its_canonical_name(layout):
    found = Layout.of(build_layout(layout))
    assert edit_site(found, SAME_LAYER) == QUICKFIX
    assert str(edit_site(found, MLP)) == "text_encoder:text_model.encoder.layers.1.mlp.fc2"


def test_edits_cannot_act_on_the_stream_or_on_another_encoder():
    found = Layout.of(build_layout("sdxl"))
    for name in (STREAM, "text_encoder_2.layers.0.mlp@last"):
        with pytest.raises(TraceSiteUnknown, match="edits act on"):
            edit_site(found, name)


def test_a_written_site_becomes_what_the_preset_stands_for(tmp_path):
    (tmp_path / "quickfix.json").write_text('{"steps": 7}', encoding="utf-8")
    site = "text_encoder:text_model.encoder.layers.2.mlp.fc2"
    assert ModelDefaults.read(tmp_path).edit_sites == PRESETS["quickfix"]
    write_default_sites(tmp_path, (site,))
    card = json.loads((tmp_path / "quickfix.json").read_text(encoding="utf-8"))
    assert card == {"steps": 7, "sites": [site]}
    presets = ModelDefaults.read(tmp_path).presets
    assert [str(s) for s in edit_spec(catalog_entry("remove-pistol"), presets).sites] == [site]
    assert edit_spec(catalog_entry("remove-pistol")).sites == PRESETS["quickfix"]


def test_write_sites_of_a_model_without_a_causal_site_writes_nothing(traced_model, tmp_path):
    before = (traced_model / "quickfix.json").read_bytes()
    result = CliRunner().invoke(
        app, ["trace", "--model", str(traced_model), "--seeds", "1", "--write-sites",
              "--out", str(tmp_path / "out")],
    )  # fmt: skip
    assert isinstance(result.exception, TraceInvalid)
    assert "no site is written" in result.exception.message
    assert (traced_model / "quickfix.json").read_bytes() == before


def test_a_site_that_everything_passes_through_is_no_finding():
    array = scores(0.9, 0.2, 0.3, 0.1)
    array[..., 5] = array[..., 0]
    found = judged(array)
    assert found.site == ATTENTION
    assert found.is_causal


def test_a_site_that_only_some_prompts_have_is_not_compared():
    array = scores(0.9, 0.2, 0.3, 0.1)
    array[6:, ..., 2] = np.nan
    assert judged(array).site == MLP


def test_direct_effects_rank_the_window_that_takes_most_away():
    names = ("clean", "corrupted", "cross-attention[0:1]", "cross-attention[1:2]")
    array = scores(0.9, 0.1)
    found = verdict(array, names, effects(array, names), by="direct")
    assert found.site == "cross-attention[1:2]"
    assert found.effect.mean == pytest.approx(0.9, abs=0.03)
    assert found.difference.mean == pytest.approx(0.8, abs=0.03)
    assert found.is_causal


def test_write_sites_stores_a_site_that_stands_out_and_edits_use_it(traced_model, tmp_path):
    """The scores are made: no random model has a causal site. All else is the command itself."""
    model, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(traced_model, model)
    command = ["trace", "--model", str(model), "--seeds", "1", "--out", str(out)]
    assert CliRunner().invoke(app, command).exit_code == 0
    result, arrays = read_result(out)
    for attribute, found in result.attributes.items():
        pairs, *_ = arrays[attribute].shape
        made = np.zeros_like(arrays[attribute])
        made[..., 0, :] = 1
        made[..., found.conditions.index("text_encoder.layers.1.mlp@last"), :] = 0.9
        made += 0.001 * np.arange(pairs)[:, None, None, None, None]
        arrays[attribute] = made
    write_result(out, result.model_dump(mode="json", exclude={"arrays"}), arrays)
    written = CliRunner().invoke(app, [*command, "--write-sites"])
    assert written.exit_code == 0, written.output
    site = "text_encoder:text_model.encoder.layers.1.mlp.fc2"
    assert ModelDefaults.read(model).sites == (site,)
    edited = CliRunner().invoke(app, ["edit", "remove-pistol", "--model", str(model), "--json"])
    assert [report["site"] for report in json.loads(edited.stdout)["sites"]] == [site]
