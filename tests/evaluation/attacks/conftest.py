import copy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from edits.evaluation.attacks.encoder import EncoderView
from edits.evaluation.attacks.pair import EncoderPair
from edits.evaluation.attacks.target import Target
from edits.loading import load_pipeline
from edits.manifests import catalog_entry
from edits.method import Editor
from edits.method.components import with_components
from edits.model_card import ModelDefaults
from edits.plan import edit_spec
from tests.tiny_pipeline import build_pipeline

MODEL = Path(__file__).resolve().parents[3] / "models" / "demo"
TARGET = Target("pistol", "toy", ("gun",), ("{x}", "a photo of {ax} on a red background"))


class HalvedLinear(nn.Linear):
    """An edit for tests: a subclass of nn.Linear that answers half of what the layer did."""

    def __init__(self, layer):
        super().__init__(layer.in_features, layer.out_features)
        self.weight, self.bias = nn.Parameter(layer.weight / 2), layer.bias

    def forward(self, x):
        return super().forward(x) - self.bias / 2


def halved(module):
    """A copy of a text encoder whose first output projection is halved."""
    edited = copy.deepcopy(module)
    path = next(n for n, _ in edited.named_modules() if n.endswith("layers.0.self_attn.out_proj"))
    attention = edited.get_submodule(path.rpartition(".")[0])
    attention.out_proj = HalvedLinear(attention.out_proj)
    return edited


@pytest.fixture(scope="session", params=["sd-1.x", "sd-2.x"])
def tiny(request):
    """A pipeline of each layout; tests read it only."""
    return build_pipeline(request.param)


@pytest.fixture(scope="session")
def pair(tiny):
    return EncoderPair(
        EncoderView(tiny.text_encoder, tiny.tokenizer),
        EncoderView(halved(tiny.text_encoder), tiny.tokenizer),
    )


@dataclass
class Demo:
    """The demo model, and one of its catalog's edits."""

    pipeline: object
    editor: Editor
    spec: object
    modules: dict

    @property
    def edited_pipeline(self):
        return with_components(self.pipeline, self.modules)


@pytest.fixture(scope="session")
def demo_editor():
    torch.set_num_threads(1)
    pipeline = load_pipeline(str(MODEL))
    editor = Editor(pipeline, ordinary=ModelDefaults.read(MODEL).ordinary_captions)
    return pipeline, editor


@pytest.fixture(scope="session")
def demo(demo_editor):
    """The demo model with pistols removed."""
    pipeline, editor = demo_editor
    spec = edit_spec(catalog_entry("remove-pistol"))
    return Demo(pipeline, editor, spec, editor.apply(editor.compose([spec])))
