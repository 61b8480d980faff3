"""Bad input: a clear error that names the field, and nothing changed."""

from types import SimpleNamespace

import pytest
import torch

from edits.errors import ConceptUntraceable, EditRefused, NonFinite, SiteUnknown
from edits.method import QUICKFIX, Editor, EditSpec, Site, resolve
from tests.tiny_pipeline import POSITIONS

from .conftest import bits, same_bits

PISTOL = EditSpec("remove-pistol", "pistol", "toy", aliases=("gun",), preserve=("knife", "robot"))

LONG = " ".join(["cat"] * POSITIONS)
REFUSED = [
    ({"concept": LONG}, ConceptUntraceable, "spec.concept"),
    ({"concept": ""}, ConceptUntraceable, "spec.concept"),
    ({"aliases": (LONG,)}, ConceptUntraceable, "spec.aliases"),
    ({"anchor": LONG}, ConceptUntraceable, "spec.anchor"),
    ({"anchor": " "}, ConceptUntraceable, "spec.anchor"),
    ({"preserve": (LONG,)}, ConceptUntraceable, "spec.preserve"),
    ({"sites": (Site("text_encoder", "nowhere"),)}, SiteUnknown, "spec.method.sites"),
    ({"sites": (Site("unet", QUICKFIX.path),)}, SiteUnknown, "spec.method.sites"),
]


@pytest.mark.parametrize(("change", "error", "field"), REFUSED)
def test_bad_input_is_refused_by_field_and_changes_nothing(pipeline, editor, change, error, field):
    before = bits(pipeline.text_encoder)
    spec = EditSpec(**{"name": "e", "concept": "pistol", "anchor": "toy"} | change)
    with pytest.raises(error) as caught:
        editor.check(spec)
    assert caught.value.param == field
    with pytest.raises(error):
        editor.compose([PISTOL, spec])
    assert same_bits(pipeline.text_encoder, before)


@pytest.mark.parametrize("ridge", [0.0, -1.0, float("nan"), float("inf")])
def test_a_ridge_that_is_no_positive_number_is_refused(ridge):
    with pytest.raises(EditRefused, match="ridge") as caught:
        EditSpec("e", "pistol", "toy", ridge=ridge)
    assert caught.value.param == "spec.method.ridge"


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_a_preserve_weight_below_zero_or_not_finite_is_refused(weight):
    with pytest.raises(EditRefused, match="preserve_weight") as caught:
        EditSpec("e", "pistol", "toy", preserve_weight=weight)
    assert caught.value.param == "spec.method.preserve_weight"


def test_parity_is_refused_beside_other_edits(editor):
    parity = EditSpec("p", "gun", "toy", parity=True)
    with pytest.raises(EditRefused, match="parity") as caught:
        editor.compose([PISTOL, parity])
    assert caught.value.param == "spec.method.parity"


@pytest.mark.parametrize("place", ["out_proj", "v_proj"])
def test_a_model_with_non_finite_weights_is_refused(pipeline, editor, place):
    attention = pipeline.text_encoder.encoder.layers[0].self_attn
    getattr(attention, place).weight[0, 0] = float("nan")
    with pytest.raises(NonFinite, match=r"layers\.0\.self_attn\.out_proj"):
        editor.compose([PISTOL])


def test_an_edited_weight_that_its_dtype_cannot_hold_is_refused(pipeline):
    encoder = pipeline.text_encoder
    layer = resolve(encoder, QUICKFIX)
    layer.weight.mul_(0).add_(60000.0)
    layer.bias.zero_()
    encoder.encoder.layers[0].self_attn.v_proj.weight.mul_(1e-2)
    half = Editor(
        SimpleNamespace(text_encoder=encoder.to(torch.float16), tokenizer=pipeline.tokenizer)
    )
    with pytest.raises(NonFinite, match="float16") as caught:
        half.compose([EditSpec("e", "pistol", "toy", ridge=1e-9, parity=False)])
    assert caught.value.param == "spec.method.ridge"
