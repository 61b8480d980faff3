"""A small traceable model with a judge of random weights, and its prompts."""

import json
import os
import secrets

import pytest
import torch

from edits.evaluation.judge import Judge
from tests.tiny_layouts import write_layout

# Ray reads them once, when it is imported. Without them a token that an earlier session left in the
# home directory decides, and differently for a cluster and for a command that connects to it.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)

PROMPTS = """\
apiVersion: quickfix/v1
kind: TracePrompts
attributes:
  object:
    pairs:
      - {caption: a photo of a pistol, concept: pistol, anchor_caption: a photo of a toy}
      - {caption: a red cat robot, concept: cat robot, anchor_caption: a red toy, class: robot}
  style:
    pairs:
      - caption: a painting by van gogh of a cat
        concept: van gogh
        anchor_caption: a painting by beer of a cat
"""


@pytest.fixture(scope="session")
def traced_model(tmp_path_factory):
    """A folder of the sd-1.x layout with a judge, a card of 2 steps and attributes.yaml."""
    folder = write_layout(tmp_path_factory.mktemp("models") / "tiny", "sd-1.x")
    write_judge(folder)
    (folder / "attributes.yaml").write_text(PROMPTS, encoding="utf-8")
    card = json.loads((folder / "quickfix.json").read_text(encoding="utf-8"))
    (folder / "quickfix.json").write_text(json.dumps(card | {"steps": 2}), encoding="utf-8")
    return folder


def write_judge(folder, *, seed=3):
    """Random heads whose probabilities differ from picture to picture."""
    torch.manual_seed(seed)
    judge = Judge({"object": ("pistol", "robot", "toy"), "style": ("photo", "van gogh")})
    with torch.no_grad():
        for head in judge.heads.values():
            head.weight.mul_(20)
    judge.save(folder / "judge.safetensors")
    return folder
