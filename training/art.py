"""The icon art: fetched by npm at pinned versions, rasterised by resvg, never committed."""

import io
import json
import subprocess
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from training.vocabulary import OBJECTS

PACKAGES = {
    "@iconify-json/noto": "1.2.9",  # Apache-2.0
    "@iconify-json/twemoji": "1.2.5",  # CC-BY-4.0
    "@iconify-json/fluent-emoji-flat": "1.2.6",  # MIT
}

ICON_NAMES = {
    "cat": "cat-face",
    "dog": "dog-face",
    "fish": "tropical-fish",
    "apple": "red-apple",
    "car": "automobile",
    "tree": "deciduous-tree",
    "flower": "tulip",
    "heart": "red-heart",
    "ball": "soccer-ball",
    "pistol": "water-pistol",  # every current vendor draws the pistol as a water pistol
    "knife": "kitchen-knife",
    "beer": "beer-mug",
    "moon": "crescent-moon",
}

RASTER_SIZE = 160


def fetch(folder: Path) -> Path:
    """Install the pinned icon packages under `folder`; returns the folder of the packages."""
    packages = folder / "node_modules"
    wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
    if not all((packages / name / "icons.json").is_file() for name in PACKAGES):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text('{"name": "art", "private": true}\n')
        subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", *wanted], cwd=folder, check=True
        )
    for name, version in PACKAGES.items():
        installed = json.loads((packages / name / "package.json").read_text())["version"]
        if installed != version:
            raise RuntimeError(
                f"{name} {installed} is installed, {version} is pinned: delete {packages}"
            )
    return packages


def rasterise(packages: Path) -> dict[str, list[np.ndarray]]:
    """One RGBA array (RASTER_SIZE, RASTER_SIZE, 4) uint8 per object and vendor, in fixed order."""
    art: dict[str, list[np.ndarray]] = {name: [] for name in OBJECTS}
    for package in PACKAGES:
        icons = json.loads((packages / package / "icons.json").read_text())
        for name in OBJECTS:
            icon = icons["icons"][ICON_NAMES.get(name, name)]
            width, height = icon.get("width", icons["width"]), icon.get("height", icons["height"])
            svg = (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
                f'width="{width}" height="{height}">{icon["body"]}</svg>'
            )
            png = resvg_py.svg_to_bytes(
                svg_string=svg, width=RASTER_SIZE, height=RASTER_SIZE, skip_system_fonts=True
            )
            art[name].append(np.array(Image.open(io.BytesIO(bytes(png))).convert("RGBA")))
    return art
