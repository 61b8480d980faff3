"""Names, ranks and refusals of LoRA files; what they draw is in test_pictures.py."""

import json
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from edits.errors import QuickFixError
from edits.export.edit_set import EditSet
from edits.export.lora import write_lora
from edits.method import QUICKFIX, Editor, Site, parse_sites, resolve
from tests.export.compare import edit_set
from tests.export.conftest import PISTOL
from tests.tiny_layouts import build_layout

LAYER = "text_model.encoder.layers.0"
TO_K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture(scope="module")
def pipeline():
    return build_layout("sd-1.x")


def moved(pipeline, *sites, ranks=None, size=1.0):
    """An edit set whose deltas have these ranks, 1, 2, ... by default."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for site, rank in zip(sites, ranks or range(1, len(sites) + 1), strict=True):
        weight = resolve(getattr(pipeline, site.component), site).weight.detach()
        left = torch.randn(weight.shape[0], rank, generator=generator)
        delta = left @ torch.randn(rank, weight.shape[1], generator=generator)
        weights[site] = weight + size * delta
    return EditSet(("edit@1",), "sha256:b", "sha256:c", weights)


def shapes(path):
    return {name: tuple(tensor.shape) for name, tensor in load_file(path).items()}


def test_a_peft_file_has_one_pair_of_factors_for_each_site(pipeline, tmp_path):
    path = tmp_path / "peft.safetensors"
    edits = moved(pipeline, QUICKFIX, Site("unet", TO_K))
    write_lora(path, pipeline, edits, spelling="peft")
    assert shapes(path) == {
        f"text_encoder.{LAYER}.self_attn.out_proj.lora_A.weight": (1, 32),
        f"text_encoder.{LAYER}.self_attn.out_proj.lora_B.weight": (32, 1),
        f"unet.{TO_K}.lora_A.weight": (2, 32),
        f"unet.{TO_K}.lora_B.weight": (16, 2),
    }


def test_a_kohya_file_has_an_alpha_equal_to_the_rank(pipeline, tmp_path):
    path = tmp_path / "kohya.safetensors"
    write_lora(path, pipeline, moved(pipeline, QUICKFIX, ranks=[3]), spelling="kohya")
    stem = "lora_te_text_model_encoder_layers_0_self_attn_out_proj"
    assert shapes(path) == {
        f"{stem}.alpha": (),
        f"{stem}.lora_down.weight": (3, 32),
        f"{stem}.lora_up.weight": (32, 3),
    }
    assert load_file(path)[f"{stem}.alpha"] == 3.0


def test_kohya_tells_the_two_encoders_of_sdxl_apart(tmp_path):
    pipeline = build_layout("sdxl")
    sites = (QUICKFIX, Site("text_encoder_2", QUICKFIX.path))
    path = tmp_path / "sdxl.safetensors"
    write_lora(path, pipeline, moved(pipeline, *sites), spelling="kohya")
    assert {name.partition("_text")[0] for name in shapes(path)} == {"lora_te1", "lora_te2"}


def test_all_layers_of_a_component_get_the_largest_rank_and_alpha(pipeline, tmp_path):
    sites = [Site("text_encoder", f"text_model.encoder.layers.{n}.mlp.fc1") for n in (0, 1)]
    for spelling, down in (("peft", ".down.weight"), ("kohya", ".lora_down.weight")):
        path = tmp_path / f"{spelling}.safetensors"
        edits = moved(pipeline, *sites, ranks=[2, 5])
        figures = write_lora(path, pipeline, edits, spelling=spelling)
        assert [each.rank for each in figures] == [2, 5]
        tensors = load_file(path)
        assert {t.shape[0] for name, t in tensors.items() if name.endswith(down)} == {5}
        assert {float(t) for name, t in tensors.items() if name.endswith(".alpha")} <= {5.0}


def test_the_factors_multiply_to_the_delta(pipeline, tmp_path):
    path = tmp_path / "peft.safetensors"
    edits = moved(pipeline, QUICKFIX, ranks=[4])
    (figures,) = write_lora(path, pipeline, edits, spelling="peft")
    down, up = (load_file(path)[name] for name in sorted(shapes(path)))
    delta = (
        edits.weights[QUICKFIX].double()
        - pipeline.text_encoder.get_submodule(
            QUICKFIX.path.removeprefix("text_model.")
        ).weight.double()
    )
    off = (delta - up.double() @ down.double()).norm() / edits.weights[QUICKFIX].double().norm()
    assert float(off) == pytest.approx(figures.error, rel=1e-9)
    assert float(off) < torch.finfo(torch.float32).eps
    assert figures.rank == 4


def test_the_rank_of_an_edit_of_one_concept_is_its_number_of_rows_at_most(demo, tmp_path):
    editor = Editor(demo)
    (report,) = editor.compose([PISTOL]).reports
    edits, _ = edit_set(editor, [PISTOL])
    (figures,) = write_lora(tmp_path / "a.safetensors", demo, edits, spelling="peft")
    assert 1 < figures.rank <= report.rows


def test_the_file_names_its_edits_and_its_base(pipeline, tmp_path):
    path = tmp_path / "kohya.safetensors"
    write_lora(path, pipeline, moved(pipeline, QUICKFIX, ranks=[3]), spelling="kohya")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    said = {"edits": ["edit@1"], "base": "sha256:b", "composition": "sha256:c"}
    assert json.loads(metadata["quickfix"]) == said
    assert metadata["ss_network_dim"] == metadata["ss_network_alpha"] == "3"


def test_a_site_that_did_not_move_has_no_factors(pipeline, tmp_path):
    path = tmp_path / "peft.safetensors"
    still = moved(pipeline, QUICKFIX, size=0.0).weights
    edits = moved(pipeline, Site("unet", TO_K))
    both = EditSet(edits.names, edits.base, edits.composition, {**edits.weights, **still})
    write_lora(path, pipeline, both, spelling="peft")
    assert {name.partition(".")[0] for name in shapes(path)} == {"unet"}
    nothing = EditSet(edits.names, edits.base, edits.composition, still)
    with pytest.raises(QuickFixError, match="change no weight"):
        write_lora(path, pipeline, nothing, spelling="peft")


@pytest.mark.parametrize(
    ("layout", "site", "spelling", "instead"),
    [
        ("sd-1.x", f"text_encoder:{LAYER}.self_attn.v_proj", "kohya", "--format peft or folder"),
        ("sd-1.x", "unet:time_embedding.linear_1", "peft", "--format folder"),
        ("sdxl", "text_encoder_2:text_projection", "peft", "--format folder"),
        ("sd-3", str(QUICKFIX), "kohya", "--format peft or folder"),
    ],
)
def test_a_site_that_diffusers_would_not_load_is_refused(tmp_path, layout, site, spelling, instead):
    pipeline = build_layout(layout)
    path = tmp_path / "lora.safetensors"
    with pytest.raises(QuickFixError, match=f"{spelling} LoRA of {site}; use {instead}"):
        write_lora(path, pipeline, moved(pipeline, *parse_sites([site])), spelling=spelling)
    assert not path.exists()


def test_a_pipeline_without_a_loader_is_refused(pipeline, tmp_path):
    bare = SimpleNamespace(text_encoder=pipeline.text_encoder)
    with pytest.raises(QuickFixError, match="loads no LoRA files; export a folder"):
        write_lora(tmp_path / "a.safetensors", bare, moved(bare, QUICKFIX), spelling="peft")
