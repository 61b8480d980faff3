"""The edited pipeline as a folder: plain layers, the edited bits, nothing else moved."""

import json

import pytest
import torch
from diffusers import DiffusionPipeline
from torch import nn

from edits.evaluation.report import load_judge
from edits.export.folder import edited_pipeline, write_folder
from edits.loading import load_pipeline
from edits.method import QUICKFIX, Editor, resolve, with_components
from edits.model_card import ModelDefaults
from tests.export.compare import DEMO, edit_set
from tests.export.conftest import PISTOL
from tests.tiny_pipeline import build_pipeline


def states(pipeline):
    return {
        name: module.state_dict()
        for name, module in pipeline.components.items()
        if isinstance(module, nn.Module)
    }


def keys(pipeline):
    return {name: list(state) for name, state in states(pipeline).items()}


@pytest.fixture(scope="module")
def exported(demo, demo_edits, tmp_path_factory):
    """The demo model with two edits, as a folder."""
    folder = tmp_path_factory.mktemp("export") / "edited"
    write_folder(folder, demo, demo_edits[0], model=str(DEMO))
    return folder


def test_every_tensor_is_the_edited_pipelines_bit_for_bit(demo, demo_edits, exported):
    found = states(load_pipeline(str(exported)))
    before = states(demo)
    assert found.keys() == before.keys()
    wanted = demo_edits[0].weights[QUICKFIX]
    changed = [
        (component, name)
        for component, state in before.items()
        for name, tensor in state.items()
        if not torch.equal(found[component][name], tensor)
    ]
    assert changed == [("text_encoder", "encoder.layers.0.self_attn.out_proj.weight")]
    assert torch.equal(found["text_encoder"][changed[0][1]], wanted)


def test_the_names_of_the_tensors_are_those_of_the_pristine_pipeline(demo, demo_edits, exported):
    served = with_components(demo, demo_edits[1])
    assert type(resolve(served.text_encoder, QUICKFIX)) is not nn.Linear
    plain = edited_pipeline(demo, demo_edits[0])
    assert type(resolve(plain.text_encoder, QUICKFIX)) is nn.Linear
    loaded = DiffusionPipeline.from_pretrained(exported)
    assert keys(served) == keys(plain) == keys(loaded) == keys(demo)


def test_the_pristine_pipeline_is_only_read_and_what_no_edit_changes_is_shared(demo, demo_edits):
    before = resolve(demo.text_encoder, QUICKFIX).weight.clone()
    plain = edited_pipeline(demo, demo_edits[0])
    assert torch.equal(resolve(demo.text_encoder, QUICKFIX).weight, before)
    assert plain.unet is demo.unet
    pointers = {p.data_ptr() for p in demo.text_encoder.parameters()}
    own = [n for n, p in plain.text_encoder.named_parameters() if p.data_ptr() not in pointers]
    assert own == ["encoder.layers.0.self_attn.out_proj.weight"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_folder_has_the_dtype_of_the_pipeline(tmp_path, dtype):
    pipeline = build_pipeline("sd-1.x")
    for module in (pipeline.text_encoder, pipeline.unet, pipeline.vae):
        module.to(dtype)
    edits, _ = edit_set(Editor(pipeline), [PISTOL])
    write_folder(tmp_path / "edited", pipeline, edits)
    loaded = DiffusionPipeline.from_pretrained(tmp_path / "edited", dtype=dtype)
    weight = resolve(loaded.text_encoder, QUICKFIX).weight
    assert weight.dtype == dtype
    assert torch.equal(weight, edits.weights[QUICKFIX])


def test_the_folder_does_not_claim_to_be_the_pristine_model(demo_edits, exported):
    edits = demo_edits[0]
    assert Editor(load_pipeline(str(exported))).fingerprint != edits.base
    said = json.loads((exported / "quickfix-export.json").read_text())
    assert said == {
        "edits": ["remove-pistol@1", "remove-van-gogh@1"],
        "base": edits.base,
        "composition": edits.composition,
        "sites": [str(QUICKFIX)],
    }
    card = (exported / "README.md").read_text()
    assert "It is not the model that it was made from" in card
    assert edits.base in card and "QuickFix demo model" not in card


def test_what_holds_for_an_edited_model_is_copied_and_the_rest_is_not(exported):
    assert ModelDefaults.read(exported) == ModelDefaults.read(DEMO)
    assert load_judge(str(exported)).classes == load_judge(str(DEMO)).classes
    assert not (exported / "scorer.safetensors").exists()
    assert not (exported / "attributes.yaml").exists()


def test_all_weights_are_safetensors_and_no_file_names_a_place_on_this_machine(exported):
    files = [path for path in exported.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".ckpt")]
    texts = [path.read_text() for path in files if path.suffix in (".json", ".md")]
    assert not [text for text in texts if str(DEMO) in text or str(exported.parent) in text]
