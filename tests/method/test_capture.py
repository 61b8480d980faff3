import pytest
import torch
from torch import nn
from torch.nn import functional

from edits.errors import NonFinite, SiteUnknown
from edits.method import QUICKFIX, Site
from edits.method.capture import capture_keys
from edits.method.first_projections import _BLOCK as BLOCK
from edits.method.first_projections import FirstProjections

from .conftest import NestedEncoder

SECOND = Site("text_encoder", "text_model.encoder.layers.1.self_attn.out_proj")


@pytest.fixture
def ids(pristine):
    texts = ["", "a photo of a cat", "van gogh"]
    return pristine.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids


@pytest.fixture
def projected(pipeline, monkeypatch):
    """Rows that the first query projection has made since it was last asked."""
    weight = pipeline.text_encoder.encoder.layers[0].self_attn.q_proj.weight
    rows = []
    linear = functional.linear

    def counted(read, by, bias=None):
        if by is weight:
            rows.append(len(read.flatten(0, -2)))
        return linear(read, by, bias)

    def since():
        total = sum(rows)
        rows.clear()
        return total

    monkeypatch.setattr(functional, "linear", counted)
    return since


def hooks(encoder):
    assert not any("forward" in vars(module) for module in encoder.modules())
    return sum(
        len(module._forward_pre_hooks) + len(module._forward_hooks) for module in encoder.modules()
    )


@pytest.mark.parametrize("site", [QUICKFIX, SECOND])
def test_keys_are_what_the_layer_reads_in_a_full_forward_pass(pipeline, ids, site):
    encoder = pipeline.text_encoder
    layer = encoder.encoder.layers[0 if site == QUICKFIX else 1].self_attn.out_proj
    seen = []
    handle = layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    encoder(ids)
    handle.remove()
    keys = capture_keys(encoder, site, ids)
    assert keys.dtype == torch.float64
    assert torch.equal(keys, seen[0].double())
    assert torch.equal(capture_keys(NestedEncoder(encoder), site, ids), keys)


def test_only_the_layers_up_to_the_site_run(pipeline, ids):
    encoder = pipeline.text_encoder
    calls = {name: 0 for name, _ in encoder.named_modules()}
    for name, module in encoder.named_modules():

        def count(*_, name=name):
            calls[name] += 1

        module.register_forward_pre_hook(count)
    capture_keys(encoder, QUICKFIX, ids)
    first = "encoder.layers.0"
    ran = {name for name, times in calls.items() if times}
    assert all(calls[name] == 1 for name in ran)
    assert {f"{first}.self_attn.{p}" for p in ("q_proj", "k_proj", "v_proj")} <= ran
    assert f"{first}.mlp" not in ran
    assert not any(name.startswith("encoder.layers.1") for name in ran)
    assert "final_layer_norm" not in ran


def test_a_token_that_stands_at_a_place_in_every_caption_is_projected_there_once(
    pipeline, ids, projected
):
    alike = ids[1:2].repeat(6, 1)
    alike[3, 2] = ids[1, 1]
    keys = capture_keys(pipeline.text_encoder, QUICKFIX, alike)
    different = ids.shape[1] + 1
    assert different <= projected() < different + BLOCK
    assert torch.equal(keys[0], keys[5])
    assert not torch.equal(keys[0], keys[3])


@pytest.mark.parametrize("site", [QUICKFIX, SECOND])
def test_tokens_whose_projections_are_kept_are_not_projected_again(pipeline, ids, site, projected):
    encoder = pipeline.text_encoder
    expected = capture_keys(encoder, site, ids)
    kept = ids[0].tolist()  # the empty prompt: start, end and padding
    projections = FirstProjections(encoder, "text_encoder", kept, ids.shape[1] - 4)
    projected()
    words = [sum(token not in kept for token in row.tolist()) for row in ids]
    first = capture_keys(encoder, site, ids[1:2, :-4], projections)
    assert words[1] <= projected() < words[1] + BLOCK
    whole = capture_keys(encoder, site, ids, projections)
    beyond = sum(words) + 4  # four positions beyond those kept
    assert beyond <= projected() < beyond + BLOCK
    capture_keys(encoder, site, ids[:1, :-4], projections)
    assert projected() == 0
    torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first, expected[1:2, :-4], rtol=1e-5, atol=1e-6)
    assert hooks(encoder) == 0


def test_no_hook_stays(pipeline, ids):
    capture_keys(pipeline.text_encoder, QUICKFIX, ids)
    assert hooks(pipeline.text_encoder) == 0
    assert pipeline.text_encoder(ids).last_hidden_state.shape[0] == 3


def test_no_hook_stays_when_the_forward_pass_fails(pipeline, ids):
    encoder = pipeline.text_encoder
    with pytest.raises(IndexError):
        capture_keys(encoder, QUICKFIX, ids + 10**6)
    assert hooks(encoder) == 0


def test_a_layer_that_never_runs_is_refused_and_keeps_no_hook(pipeline, ids):
    encoder = pipeline.text_encoder
    encoder.spare = nn.Linear(4, 4)
    with pytest.raises(SiteUnknown, match="never runs"):
        capture_keys(encoder, Site("text_encoder", "spare"), ids)
    assert hooks(encoder) == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_keys_are_refused(pipeline, ids, bad):
    encoder = pipeline.text_encoder
    encoder.encoder.layers[0].self_attn.v_proj.weight[0, 0] = bad
    with pytest.raises(NonFinite, match=r"layers\.0"):
        capture_keys(encoder, QUICKFIX, ids)
    assert hooks(encoder) == 0
