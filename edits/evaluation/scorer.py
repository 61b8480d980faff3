"""CLIPScore with the model's own towers (Hessel et al., 2021; the metric of the QuickFix paper)."""

from pathlib import Path
from typing import Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from edits.evaluation.convnet import ConvNet


class ImageTower(nn.Module):
    """Pixels (b, 3, 64, 64) in [-1, 1] to the joint space (b, projection)."""

    def __init__(self, projection: int) -> None:
        super().__init__()
        self.net = ConvNet()
        self.head = nn.Linear(self.net.features, projection)

    def forward(self, pixels: Tensor) -> Tensor:
        """Unnormalised image embedding (b, projection)."""
        embedding: Tensor = self.head(self.net(pixels))
        return embedding


class ClipScorer(nn.Module):
    """Image tower and text projection; the text tower is the pipeline's pristine encoder."""

    def __init__(self, image_tower: ImageTower, text_projection: nn.Linear) -> None:
        super().__init__()
        self.image_tower = image_tower
        self.text_projection = text_projection

    def embed_pixels(self, pixels: Tensor) -> Tensor:
        """Pixels (b, 3, 64, 64) in [-1, 1] to unit vectors (b, projection)."""
        return functional.normalize(self.image_tower(pixels), dim=-1)

    def embed_hidden(self, hidden: Tensor) -> Tensor:
        """Last hidden state at end-of-text (b, width) to unit vectors (b, projection)."""
        return functional.normalize(self.text_projection(hidden), dim=-1)

    def save(self, path: Path) -> None:
        """Write the weights in half precision as safetensors."""
        save_file({k: v.half().contiguous() for k, v in self.state_dict().items()}, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; the sizes come from the file."""
        weights = {k: v.float() for k, v in load_file(path).items()}
        projection, width = weights["text_projection.weight"].shape
        scorer = cls(ImageTower(projection), nn.Linear(width, projection, bias=False))
        scorer.load_state_dict(weights)
        return scorer.eval()


@torch.no_grad()
def clip_scores(scorer: ClipScorer, pixels: Tensor, hidden: Tensor) -> Tensor:
    """Cosine of each image with its caption, (b,); the 2.5 of Hessel et al. is left away."""
    return (scorer.embed_pixels(pixels) * scorer.embed_hidden(hidden)).sum(-1)
