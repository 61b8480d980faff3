"""Bad input ends in a clear error before any model runs."""

import pytest
import torch
from typer.testing import CliRunner

from edits.cli import app
from edits.errors import (
    PipelineUntraceable,
    TraceInvalid,
    TracePromptsInvalid,
    TraceSiteUnknown,
)
from edits.tracing.layout import Layout
from edits.tracing.options import TraceOptions
from edits.tracing.positions import check_positions
from tests.tiny_layouts import build_layout, build_untraceable, write_layout

HEAD = "apiVersion: quickfix/v1\nkind: TracePrompts\nattributes:\n  object:\n    pairs:\n"
GOOD = "      - {caption: a photo of a pistol, concept: pistol, anchor_caption: a photo of a toy}\n"


@pytest.fixture
def refused(traced_model, tmp_path, monkeypatch):
    """Run `quickfix trace` where a forward pass of any network is a failure; answers the error."""

    def forbidden(*_call, **_keywords):
        raise AssertionError("a model ran")

    def run(*arguments, prompts=None):
        if prompts is not None:
            (tmp_path / "prompts.yaml").write_text(prompts, encoding="utf-8")
            arguments = (*arguments, "--prompts", str(tmp_path / "prompts.yaml"))
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.Module, "__call__", forbidden)
            result = CliRunner().invoke(
                app, ["trace", *map(str, arguments), "--model", str(traced_model),
                      "--out", str(tmp_path / "out")],
            )  # fmt: skip
        assert not (tmp_path / "out").exists()
        assert result.exception is not None
        return result.exception

    return run


@pytest.mark.parametrize(
    ("prompts", "param", "words"),
    [
        (HEAD + GOOD.replace("concept: pistol", "concept: gun"), "concept", "gun"),
        (HEAD + GOOD.replace("a photo of a toy", "a photo of a  PISTOL"), "anchor_caption", ""),
        (HEAD + GOOD.replace("a photo of a pistol", "a photo of a pistol" + " a cat" * 30),
         "caption", "shorten"),
        (HEAD + GOOD.replace("a photo of a toy", "a photo of a toy" + " a cat" * 30),
         "anchor_caption", "shorten"),
        (HEAD + GOOD.replace("}", ", class: spoon}"), "class", "no class 'spoon'"),
        (HEAD.replace("pairs", "judge: taste\n    pairs") + GOOD, "judge", "no head 'taste'"),
        ("nothing", None, ""),
    ],
)  # fmt: skip
def test_prompts_that_cannot_be_traced_are_named(refused, prompts, param, words):
    error = refused(prompts=prompts)
    assert isinstance(error, TracePromptsInvalid)
    assert words in error.message
    if param is not None:
        assert error.param.endswith(param)


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        (("--seeds", 0), TraceInvalid, "seeds"),
        (("--draws", 0), TraceInvalid, "draws"),
        (("--pairs", 0), TraceInvalid, "pairs"),
        (("--noise", 0), TraceInvalid, "noise"),
        (("--noise", "nan"), TraceInvalid, "noise"),
        (("--batch", 1), TraceInvalid, "batch"),
        (("--steps", 0), TraceInvalid, "steps"),
        (("--first-step", 5), TraceInvalid, "first_step"),
        (("--first-step", 1, "--last-step", 1), TraceInvalid, "no window"),
        (("--position", "middle"), TraceSiteUnknown, "'middle'"),
        (("--module", "self_attention"), TraceSiteUnknown, "self_attn, mlp, residual"),
        (("unet", "--module", "mid_block.attentions.9"), TraceSiteUnknown, "resnet"),
        (("cross-attention", "--window", 99), TraceInvalid, "wider"),
        (("latents",), TraceInvalid, "target"),
        (("--branches", "none"), TraceInvalid, "branches"),
        (("--executor", "slurm"), TraceInvalid, "slurm"),
        (("--executor", "ray", "--workers", 0), TraceInvalid, "workers"),
        (("--dtype", "int4"), TraceInvalid, "int4"),
        (("--attribute", "smell"), TracePromptsInvalid, "object, style"),
        (("unet", "--write-sites"), TraceInvalid, "text-encoder"),
        (("--clip-model", "./nowhere"), TraceInvalid, "nowhere"),
    ],
)
def test_options_that_make_no_trace_are_named(refused, arguments, kind, words):
    error = refused(*arguments)
    assert isinstance(error, kind), error
    assert words in error.message


def test_a_model_without_judge_and_scorer_asks_for_a_clip_model(tmp_path):
    model = write_layout(tmp_path / "model", "sd-1.x")
    (model / "attributes.yaml").write_text(HEAD + GOOD, encoding="utf-8")
    result = CliRunner().invoke(app, ["trace", "--model", str(model), "--out", str(tmp_path)])
    assert isinstance(result.exception, TraceInvalid)
    assert "--clip-model" in result.exception.message


def test_a_pipeline_without_text_encoder_is_refused_by_name():
    with pytest.raises(PipelineUntraceable, match="DDPMPipeline"):
        Layout.of(build_untraceable())


def test_a_pipeline_whose_text_encoder_is_no_known_stack_is_refused_by_name():
    pipeline = build_layout("sd-1.x")
    pipeline.text_encoder = torch.nn.Sequential(torch.nn.Linear(4, 4))
    with pytest.raises(PipelineUntraceable, match=r"StableDiffusionPipeline.*text_encoder"):
        Layout.of(pipeline)


def test_a_pipeline_whose_denoiser_has_no_known_blocks_is_refused_by_name():
    pipeline = build_layout("sd-1.x")
    pipeline.unet = torch.nn.Linear(4, 4)
    with pytest.raises(PipelineUntraceable, match=r"StableDiffusionPipeline.*unet or transformer"):
        Layout.of(pipeline)


def test_a_pipeline_without_cross_attention_has_no_direct_effects():
    layout = Layout.of(build_layout("sd-3"))
    with pytest.raises(TraceInvalid, match="joint attention"):
        TraceOptions(target="cross-attention").check_against(layout)


def test_no_position_at_all_is_refused():
    with pytest.raises(TraceInvalid):
        check_positions(())
