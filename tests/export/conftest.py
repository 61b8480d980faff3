"""The demo model with two edits, and a CLIP text encoder as large as SD 1.x's."""

import copy
from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModel

from edits.loading import load_any_pipeline
from edits.method import Editor, EditSpec
from tests.export.compare import DEMO, edit_set

PISTOL = EditSpec("remove-pistol", "pistol", "toy", aliases=("gun", "handgun"), tokens="last")
VAN_GOGH = EditSpec("remove-van-gogh", "van gogh", "painting", kind="style")


@pytest.fixture(scope="session")
def demo():
    """The demo model, to be read only."""
    return load_any_pipeline(str(DEMO))


@pytest.fixture(scope="session")
def demo_edits(demo):
    """Two edits of the demo model, and the modules that the service would run."""
    return edit_set(Editor(demo), [PISTOL, VAN_GOGH])


def long_tokenizer(tokenizer):
    """A copy that pads to 77 positions, as Stable Diffusion's."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.model_max_length = 77
    return tokenizer


def random_encoder(tokenizer, *, width=768, layers=12):
    """A text encoder with CLIP's own initialisation, in the shape of SD 1.x's by default."""
    torch.manual_seed(0)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=12,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config).requires_grad_(False).eval()


@pytest.fixture(scope="session")
def wide(demo):
    """A random text encoder of 768 x 12 layers and 77 positions, the demo model's tokenizer."""
    tokenizer = long_tokenizer(demo.tokenizer)
    return SimpleNamespace(text_encoder=random_encoder(tokenizer), tokenizer=tokenizer)
