import copy

import pytest
import torch
from torch import nn

from edits.method import Editor
from tests.tiny_pipeline import build_pipeline

LAYOUTS = ("sd-1.x", "sd-2.x")
ORDINARY = ("cat", "house", "tree", "a red background")


class NestedEncoder(nn.Module):
    """The layout of transformers 4: the text tower one level below the module."""

    def __init__(self, text_model):
        super().__init__()
        self.text_model = text_model

    def forward(self, ids):
        return self.text_model(ids)


def bits(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same_bits(module, before):
    after = module.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[n], before[n]) for n in before)


@pytest.fixture(scope="session", params=LAYOUTS)
def pristine(request):
    """A pipeline of each layout; tests read it only."""
    return build_pipeline(request.param)


@pytest.fixture
def pipeline(pristine):
    """The same with an encoder of the test's own."""
    own = copy.copy(pristine)
    own.text_encoder = copy.deepcopy(pristine.text_encoder)
    return own


@pytest.fixture
def editor(pipeline):
    return Editor(pipeline, ordinary=ORDINARY)


@pytest.fixture
def encode(pipeline):
    """Prompt embeddings (positions, hidden), as the pipeline makes them."""

    def run(encoder, text):
        ids = pipeline.tokenizer(text, padding="max_length", return_tensors="pt").input_ids
        with torch.no_grad():
            return encoder(ids).last_hidden_state[0]

    return run
