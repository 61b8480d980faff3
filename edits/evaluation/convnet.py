"""The small residual convolutional network under the judge and under CLIP's image tower."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut; halves height and width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(8, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(8, outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(b, inputs, h, w) to (b, outputs, h/2, w/2)."""
        y = functional.silu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return functional.silu(y + self.shortcut(x))


class ConvNet(nn.Module):
    """Pixels (b, 3, 64, 64) in [-1, 1] to features (b, widths[-1] * 4)."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 128)) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, widths[0], 3, stride=2, padding=1)
        pairs = pairwise(widths)
        self.blocks = nn.Sequential(*(Residual(a, b) for a, b in pairs))
        self.features = widths[-1] * 4

    def forward(self, pixels: Tensor) -> Tensor:
        """A grid of 2x2 means keeps coarse position: upside down differs from upright by it."""
        grid = self.blocks(functional.silu(self.stem(pixels)))
        return functional.adaptive_avg_pool2d(grid, 2).flatten(1)
