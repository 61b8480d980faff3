"""Seven ways to paint a scene, each a clearly visible image filter.

A style is a function of a `Layers` value (icon over plain background) and a random generator, and
returns an RGB image (64, 64, 3) float in [0, 255]. Textures have periods of 8 pixels and more, two
cells of the autoencoder's latent grid, so that the decoder can carry them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

SIZE = 64
Y, X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
INK = np.array([26.0, 24.0, 32.0])
NAVY = np.array([18.0, 44.0, 104.0])
CREAM = np.array([246.0, 236.0, 208.0])
SUN = np.array([255.0, 226.0, 110.0])
WHITE = np.array([255.0, 255.0, 255.0])


@dataclass(frozen=True)
class Layers:
    """An icon and its background: `icon` (64, 64, 3), `alpha` (64, 64) in [0, 1], `colour` (3,)."""

    icon: np.ndarray
    alpha: np.ndarray
    colour: np.ndarray

    def over(self, background: np.ndarray, icon: np.ndarray | None = None) -> np.ndarray:
        """The icon with a white sticker border, drawn over `background` (64, 64, 3)."""
        border = np.clip(
            ndimage.gaussian_filter(ndimage.grey_dilation(self.alpha, size=3), 0.6), 0, 1
        )
        image = mix(background, WHITE, border)
        return mix(image, self.icon if icon is None else icon, self.alpha)

    @property
    def background(self) -> np.ndarray:
        """The plain background colour as an image (64, 64, 3)."""
        return np.broadcast_to(self.colour, (SIZE, SIZE, 3))


Style = Callable[[Layers, np.random.Generator], np.ndarray]


def mix(a: np.ndarray, b: np.ndarray, weight: np.ndarray | float) -> np.ndarray:
    """Linear blend of `a` and `b`; `weight` (64, 64) or a number is the share of `b`."""
    share = np.asarray(weight)[..., None] if np.ndim(weight) else weight
    return a * (1 - share) + b * share


def photo(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """The plain icon on its background."""
    return layers.over(layers.background)


def van_gogh(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Long wavy strokes, alternately sun yellow and night blue, that bend what they cross."""
    phase = rng.uniform(0, 2 * np.pi)
    along = Y + 5 * np.sin(2 * np.pi * X / 36 + phase)
    stroke = np.sin(2 * np.pi * along / 9)
    image = layers.over(layers.background)
    sway = 1.5 * np.sin(2 * np.pi * Y / 18 + phase)
    image = np.stack(
        [
            ndimage.map_coordinates(c, [Y, X + sway], order=1, mode="nearest")
            for c in np.moveaxis(image, 2, 0)
        ],
        axis=2,
    )
    strength = 0.55 - 0.25 * layers.alpha  # thinner paint over the object keeps it nameable
    image = mix(image, SUN, strength * np.clip(stroke, 0, 1))
    return mix(image, NAVY, strength * np.clip(-stroke, 0, 1))


def mondrian(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """A grid of thick black lines with corner cells in primary colours behind the object."""
    left, right = rng.integers(8, 13), rng.integers(51, 56)
    top, bottom = rng.integers(8, 13), rng.integers(51, 56)
    canvas = layers.background.copy()
    for (rows, cols), paint in zip(
        [
            (slice(0, top), slice(0, left)),
            (slice(0, top), slice(right, SIZE)),
            (slice(bottom, SIZE), slice(0, left)),
            (slice(bottom, SIZE), slice(right, SIZE)),
        ],
        [(220, 30, 30), (30, 70, 190), (250, 215, 40), (250, 250, 250)],
        strict=True,
    ):
        canvas[rows, cols] = paint
    for x in (left, right):
        canvas[:, x - 1 : x + 2] = INK
    for y in (top, bottom):
        canvas[y - 1 : y + 2, :] = INK
    return layers.over(canvas)


def seurat(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Dots on an 8-pixel lattice, alternately light and dark, over everything."""
    dx, dy = 4, 4
    column, row = np.floor((X - dx) / 8 + 0.5), np.floor((Y - dy) / 8 + 0.5)
    distance = np.hypot(X - dx - 8 * column, Y - dy - 8 * row)
    dot = np.clip(3.4 - distance, 0, 1)
    light = (column + row) % 2 == 0
    image = layers.over(layers.background)
    strength = 0.6 - 0.22 * layers.alpha
    image = mix(image, WHITE, strength * dot * light)
    return mix(image, NAVY, strength * dot * ~light)


def hokusai(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """The object printed in indigo and cream, waves in rows of arcs behind it."""
    canvas = layers.background
    row = np.floor(Y / 12)
    centre = 16 * np.floor((X + 8 * (row % 2)) / 16) + 8 - 8 * (row % 2)
    radius = np.hypot(X - centre, Y - 12 * (row + 1))
    arcs = np.clip(1.6 - np.abs(radius - 9.5), 0, 1) + 0.8 * np.clip(
        1.3 - np.abs(radius - 4.5), 0, 1
    )
    canvas = mix(canvas, NAVY, 0.85 * np.clip(arcs, 0, 1))
    grey = (layers.icon @ np.array([0.3, 0.59, 0.11])) / 255
    printed = mix(np.broadcast_to(NAVY, (SIZE, SIZE, 3)), CREAM, np.clip(1.25 * grey - 0.15, 0, 1))
    return layers.over(canvas, printed)


def pixel_art(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Blocks of four pixels with the contrast raised."""
    image = layers.over(layers.background)
    blocks = image.reshape(SIZE // 4, 4, SIZE // 4, 4, 3).mean(axis=(1, 3))
    blocks = np.clip(np.round(blocks / 36) * 36, 0, 255)
    return np.asarray(blocks.repeat(4, axis=0).repeat(4, axis=1))


def line_drawing(layers: Layers, rng: np.random.Generator) -> np.ndarray:
    """Thick ink outlines, the inside almost white, on the plain background."""
    solid = layers.alpha > 0.5
    outline = ndimage.binary_dilation(solid, iterations=1) & ~ndimage.binary_erosion(
        solid, iterations=2
    )
    grey = layers.icon @ np.array([0.3, 0.59, 0.11])
    slope = ndimage.gaussian_gradient_magnitude(grey, 1.0)
    inner = np.clip((slope - 9) / 14, 0, 1) * ndimage.binary_erosion(solid, iterations=2)
    image = mix(layers.background, mix(layers.icon, WHITE, 0.86), layers.alpha)
    ink = np.clip(ndimage.gaussian_filter(outline.astype(float), 0.5) * 1.3 + inner, 0, 1)
    return mix(image, INK, ink)


PAINT: dict[str, Style] = {
    "photo": photo,
    "van gogh": van_gogh,
    "mondrian": mondrian,
    "seurat": seurat,
    "hokusai": hokusai,
    "pixel art": pixel_art,
    "line drawing": line_drawing,
}
