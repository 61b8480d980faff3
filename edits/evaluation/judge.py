"""The judge: a classifier of what a picture shows, trained on renders, never on generated ones."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from PIL.Image import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from edits.evaluation.convnet import ConvNet

WIDTHS = (24, 48, 96, 160)


@dataclass(frozen=True)
class Verdict:
    """The class that the judge sees for each attribute, and the probabilities behind it."""

    classes: Mapping[str, str]
    probabilities: Mapping[str, Mapping[str, float]]


class Judge(nn.Module):
    """One head per attribute (object, colour, style, viewpoint) on a shared `ConvNet`."""

    def __init__(self, classes: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.classes = {attribute: tuple(names) for attribute, names in classes.items()}
        self.net = ConvNet(WIDTHS)
        self.heads = nn.ModuleDict(
            {name: nn.Linear(self.net.features, len(names)) for name, names in self.classes.items()}
        )

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Pixels (b, 3, 64, 64) in [-1, 1] to logits (b, classes) per attribute."""
        features = self.net(pixels)
        return {name: head(features) for name, head in self.heads.items()}

    @torch.no_grad()
    def look(self, images: Sequence[Image]) -> list[Verdict]:
        """Judge pictures one by one; other sizes than 64 x 64 are scaled."""
        logits = self(pixels_of(images))
        shares = {name: values.softmax(-1).tolist() for name, values in logits.items()}
        verdicts = []
        for i in range(len(images)):
            probabilities = {
                name: dict(zip(self.classes[name], rows[i], strict=True))
                for name, rows in shares.items()
            }
            classes = {name: max(p, key=p.__getitem__) for name, p in probabilities.items()}
            verdicts.append(Verdict(classes, probabilities))
        return verdicts

    def save(self, path: Path) -> None:
        """Write weights in half precision and the class names as safetensors."""
        weights = {key: value.half().contiguous() for key, value in self.state_dict().items()}
        save_file(weights, path, metadata={"classes": json.dumps(self.classes)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        with safe_open(path, framework="pt") as file:
            judge = cls(json.loads(file.metadata()["classes"]))
            judge.load_state_dict({key: file.get_tensor(key).float() for key in file.keys()})  # noqa: SIM118
        return judge.eval()


def pixels_of(images: Sequence[Image], size: int = 64) -> Tensor:
    """Pictures as floats (b, 3, size, size) in [-1, 1]."""
    arrays = [np.asarray(image.convert("RGB").resize((size, size))) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1
