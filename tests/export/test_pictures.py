"""What diffusers draws by itself from an export is what the edited pipeline draws, within 1/255.

One process that imports nothing of this repository loads every folder and LoRA file.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from edits.export.artefact import read_artefact, write_artefact
from edits.export.edit_set import EditSet
from edits.export.folder import edited_pipeline, write_folder
from edits.export.lora import write_lora
from edits.method import QUICKFIX, Editor, EditSpec, Site, parse_sites, resolve, with_components
from tests.export.compare import draw, drawn_alone, edit_set, largest_difference
from tests.tiny_layouts import build_layout

DEMO = {
    "prompts": [
        "a pistol on a red background",
        "a house by van gogh",
        "a cat in the style of hokusai",
        "a green frog",
    ],
    "seed": 11,
    "steps": 6,
    "guidance_scale": 3.0,
    "batch": 4,
    "dtype": "float32",
}
TINY = DEMO | {"prompts": ["a pistol", "a house by van gogh", "a cat", "beer"], "steps": 4}
FORMS = ("folder", "peft", "kohya")
LAYER = "text_model.encoder.layers.{}"


@dataclass
class Model:
    """A pristine pipeline, one that runs edits as the service does, and how both are drawn."""

    pristine: Any
    edited: Any
    edits: EditSet
    settings: dict[str, Any]
    spellings: tuple[str, ...] = ("peft", "kohya")


def solved(pipeline, specs, settings, **options):
    edits, modules = edit_set(Editor(pipeline), specs)
    return Model(pipeline, with_components(pipeline, modules), edits, settings, **options)


def several_ranks():
    """Deltas of rank 2, 3, ... at sites of both parts, as no single edit makes them."""
    pipeline = build_layout("sd-1.x")
    generator = torch.Generator().manual_seed(0)
    sites = [
        Site("text_encoder", f"{LAYER.format(0)}.self_attn.out_proj"),
        Site("text_encoder", f"{LAYER.format(1)}.self_attn.v_proj"),
        Site("text_encoder", f"{LAYER.format(0)}.mlp.fc1"),
        Site("text_encoder", f"{LAYER.format(1)}.mlp.fc2"),
        Site("unet", "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"),
        Site("unet", "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"),
        Site("unet", "up_blocks.1.attentions.1.transformer_blocks.0.attn2.to_out.0"),
    ]
    weights = {}
    for rank, site in enumerate(sites, start=2):
        weight = resolve(getattr(pipeline, site.component), site).weight.detach()
        left = torch.randn(weight.shape[0], rank, generator=generator)
        delta = left @ torch.randn(rank, weight.shape[1], generator=generator)
        weights[site] = weight + 0.7 * delta * weight.norm() / delta.norm()
    edits = EditSet(("ranks@1",), "sha256:", "sha256:", weights)
    return Model(pipeline, edited_pipeline(pipeline, edits), edits, TINY)


def mlp_only():
    """A text encoder edited in one MLP layer: no attention tells a reader what the file is."""
    model = several_ranks()
    site = next(site for site in model.edits.weights if site.path.endswith("fc2"))
    edits = EditSet(("mlp@1",), "sha256:", "sha256:", {site: model.edits.weights[site]})
    return Model(model.pristine, edited_pipeline(model.pristine, edits), edits, TINY)


@pytest.fixture(scope="module")
def models(demo, demo_edits):
    pistol = EditSpec("remove-pistol", "pistol", "toy", sites=parse_sites("quickfix"))
    beer = EditSpec("remove-beer", "beer", "juice", sites=parse_sites("uce"))
    edits, modules = demo_edits
    return {
        "demo": Model(demo, with_components(demo, modules), edits, DEMO),
        "sdxl": solved(build_layout("sdxl"), [pistol, beer], TINY),
        "sd-2.x": solved(build_layout("sd-2.x"), [pistol], TINY),
        "sd-3": solved(build_layout("sd-3"), [pistol], TINY, spellings=("peft",)),
        "several ranks": several_ranks(),
        "mlp only": mlp_only(),
    }


@pytest.fixture(scope="module")
def pictures(models, tmp_path_factory):
    """What the other process draws, by model and format."""
    folder = tmp_path_factory.mktemp("alone")
    cases = {}
    for name, model in models.items():
        pristine, exported = folder / f"{name} pristine", folder / f"{name} folder"
        model.pristine.save_pretrained(pristine)
        write_folder(exported, model.pristine, model.edits)
        cases[f"{name}|folder"] = model.settings | {"folder": str(exported)}
        for spelling in model.spellings:
            file = folder / f"{name} {spelling}.safetensors"
            write_lora(file, model.pristine, model.edits, spelling=spelling)
            case = {"folder": str(pristine), "lora": str(file)}
            cases[f"{name}|{spelling}"] = model.settings | case
    cases["demo|peft"]["fuse"] = ("text_encoder", QUICKFIX.path.removeprefix("text_model."))
    return drawn_alone(cases, folder)


@pytest.fixture(scope="module")
def served(models):
    """What each edited pipeline draws, and how far that is from the pristine one's."""
    found = {}
    for name, model in models.items():
        drawn = draw(model.edited, model.settings)
        found[name] = drawn, largest_difference(drawn, draw(model.pristine, model.settings))
    return found


CASES = [
    *(
        (name, form)
        for name in ("demo", "sd-2.x", "sdxl", "several ranks", "mlp only")
        for form in FORMS
    ),
    ("sd-3", "folder"),
    ("sd-3", "peft"),
]


@pytest.mark.parametrize(("name", "form"), CASES)
def test_diffusers_alone_draws_the_pictures_of_the_edited_pipeline(served, pictures, name, form):
    wanted, edit_moves = served[name]
    assert largest_difference(pictures[f"{name}|{form}"], wanted) <= 1
    assert edit_moves > 20  # an export that changed nothing would not pass


def test_fusing_the_lora_gives_the_edited_weight_to_a_few_roundings(demo_edits, pictures):
    wanted = demo_edits[0].weights[QUICKFIX].numpy()
    off = np.abs(pictures["demo|peft|fused"] - wanted)
    assert off.max() <= 8 * np.finfo(np.float32).eps * np.abs(wanted).max()


def test_the_artefact_draws_the_pictures_of_the_edited_pipeline(models, served, tmp_path):
    model = models["demo"]
    path = tmp_path / "edits.safetensors"
    write_artefact(path, model.pristine, model.edits)
    weights = read_artefact(path, model.pristine)
    again = EditSet(model.edits.names, model.edits.base, model.edits.composition, weights)
    drawn = draw(edited_pipeline(model.pristine, again), DEMO)
    assert largest_difference(drawn, served["demo"][0]) <= 1
