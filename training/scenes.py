"""Scenes: what is in a picture, drawn at random, and the picture itself."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from training.styles import PAINT, SIZE, Layers
from training.vocabulary import COLOURS, OBJECTS, PLAIN, STYLES, VIEWPOINTS

PLAIN_SHARE = 0.5
VIEWPOINT_SHARES = (0.76, 0.12, 0.12)


@dataclass(frozen=True)
class Scene:
    """One picture's content, in the vocabulary's words, and which vendor's icon is used."""

    object: str
    colour: str
    style: str
    viewpoint: str
    vendor: int

    @property
    def labels(self) -> tuple[int, int, int, int]:
        """Class numbers of object, colour, style and viewpoint."""
        return (
            OBJECTS.index(self.object),
            list(COLOURS).index(self.colour),
            STYLES.index(self.style),
            VIEWPOINTS.index(self.viewpoint),
        )


def draw_scene(rng: np.random.Generator, vendors: int = 3) -> Scene:
    """A scene with every object, colour and vendor equally likely."""
    style = PLAIN if rng.random() < PLAIN_SHARE else str(rng.choice(STYLES[1:]))
    return Scene(
        object=str(rng.choice(OBJECTS)),
        colour=str(rng.choice(list(COLOURS))),
        style=style,
        viewpoint=str(rng.choice(VIEWPOINTS, p=VIEWPOINT_SHARES)),
        vendor=int(rng.integers(vendors)),
    )


def render(scene: Scene, art: dict[str, list[np.ndarray]], rng: np.random.Generator) -> np.ndarray:
    """Paint `scene`: (64, 64, 3) uint8. Size and place of the icon vary a little."""
    icon = Image.fromarray(art[scene.object][scene.vendor]).convert("RGBa")
    if scene.viewpoint == "upside down":
        icon = icon.transpose(Image.Transpose.ROTATE_180)
    elif scene.viewpoint == "tilted":
        icon = icon.rotate(-45 + rng.uniform(-5, 5), Image.Resampling.BICUBIC)
    # A tilted icon keeps its size: what its corners lose outside the canvas is empty in this art.
    edge = int(rng.integers(46, 53))
    icon = icon.resize((edge, edge), Image.Resampling.BOX, reducing_gap=None)
    canvas = Image.new("RGBa", (SIZE, SIZE))
    room = SIZE - edge
    x, y = np.clip(room / 2 + rng.uniform(-3, 3, size=2), 0, room).astype(int)
    canvas.paste(icon, (int(x), int(y)))
    straight = np.asarray(canvas.convert("RGBA"), dtype=np.float64)
    layers = Layers(
        icon=straight[..., :3],
        alpha=straight[..., 3] / 255,
        colour=np.array(COLOURS[scene.colour], dtype=np.float64) + rng.uniform(-6, 6, size=3),
    )
    return np.clip(PAINT[scene.style](layers, rng), 0, 255).round().astype(np.uint8)
