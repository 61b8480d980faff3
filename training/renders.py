"""A bank of rendered scenes on disk, drawn once and shared by all stages."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.art import rasterise
from training.scenes import Scene, draw_scene, render
from training.styles import SIZE
from training.vocabulary import COLOURS, OBJECTS, STYLES, VIEWPOINTS

CHUNK = 2000


@dataclass(frozen=True)
class Renders:
    """`images` (n, 64, 64, 3) uint8, memory-mapped; `labels` (n, 5): classes and vendor."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def scene(self, index: int) -> Scene:
        """The scene that image `index` shows."""
        thing, colour, style, viewpoint, vendor = (int(v) for v in self.labels[index])
        return Scene(
            OBJECTS[thing], list(COLOURS)[colour], STYLES[style], VIEWPOINTS[viewpoint], vendor
        )

    def pixels(self, indices: np.ndarray) -> Tensor:
        """Images as floats (b, 3, 64, 64) in [-1, 1]."""
        batch = torch.from_numpy(self.images[np.sort(indices)])
        return batch.permute(0, 3, 1, 2).float() / 127.5 - 1

    def batch(self, step: int, size: int, seed: int) -> np.ndarray:
        """The sorted image numbers of a step's batch, the same ones each time it is asked."""
        return np.sort(np.random.default_rng((seed, step)).integers(len(self), size=size))


def _render_chunk(packages: Path, seed: int, chunk: int) -> tuple[np.ndarray, np.ndarray]:
    art = rasterise(packages)
    rng = np.random.default_rng((seed, chunk))
    images = np.empty((CHUNK, SIZE, SIZE, 3), np.uint8)
    labels = np.empty((CHUNK, 5), np.uint8)
    for i in range(CHUNK):
        scene = draw_scene(rng)
        images[i] = render(scene, art, rng)
        labels[i] = (*scene.labels, scene.vendor)
    return images, labels


def make_renders(folder: Path, packages: Path, *, name: str, count: int, seed: int) -> Renders:
    """Render `count` scenes (a multiple of 2,000) under `folder`, or open those made before."""
    images_path, labels_path = folder / f"{name}-images.npy", folder / f"{name}-labels.npy"
    if not labels_path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        images = np.lib.format.open_memmap(
            images_path, mode="w+", dtype=np.uint8, shape=(count, SIZE, SIZE, 3)
        )
        labels = np.empty((count, 5), np.uint8)
        with ProcessPoolExecutor(2) as pool:
            chunks = pool.map(partial(_render_chunk, packages, seed), range(count // CHUNK))
            for i, (pixels, classes) in enumerate(chunks):
                images[i * CHUNK : (i + 1) * CHUNK] = pixels
                labels[i * CHUNK : (i + 1) * CHUNK] = classes
        images.flush()
        np.save(labels_path, labels)
    return Renders(np.load(images_path, mmap_mode="r"), np.load(labels_path))
