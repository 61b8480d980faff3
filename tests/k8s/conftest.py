"""The overlays, rendered once: tests change copies."""

from copy import deepcopy

import pytest

from tools.k8s.overlay import Manifest, Overlay
from tools.k8s.rendering import OVERLAYS, render


@pytest.fixture(scope="session")
def rendered() -> dict[str, Overlay]:
    return {name: render(name) for name in OVERLAYS}


@pytest.fixture
def overlays(rendered: dict[str, Overlay]) -> dict[str, Overlay]:
    """Copies that a test may change."""
    return {
        name: Overlay(
            name,
            tuple(Manifest(m.file, deepcopy(m.body)) for m in overlay.manifests),
            tuple(Manifest(m.file, deepcopy(m.body)) for m in overlay.examples),
        )
        for name, overlay in rendered.items()
    }
