from pathlib import Path

import pytest
import torch

from edits.evaluation.report import load_judge
from edits.method import EditSpec
from tests.tiny_pipeline import build_pipeline

MODEL = Path(__file__).resolve().parents[2] / "models" / "demo"


@pytest.fixture(scope="session")
def judge():
    return load_judge(str(MODEL))


@pytest.fixture(scope="session", params=["sd-1.x", "sd-2.x"])
def pipeline(request):
    return build_pipeline(request.param)


@pytest.fixture
def specs():
    return (
        EditSpec(name="pistol", concept="pistol", anchor="toy"),
        EditSpec(name="van-gogh", concept="van gogh", anchor="painting", kind="style"),
    )


@pytest.fixture
def state_of():
    """Copies of a pipeline's encoder and UNet tensors."""

    def copied(pipeline):
        return {
            f"{part}.{name}": tensor.clone()
            for part in ("text_encoder", "unet")
            for name, tensor in getattr(pipeline, part).state_dict().items()
        }

    return copied


@pytest.fixture
def changed(state_of):
    """Names of the tensors in which two pipelines differ."""

    def names(first, second):
        before, after = state_of(first), state_of(second)
        return {name for name in before if not torch.equal(before[name], after[name])}

    return names
