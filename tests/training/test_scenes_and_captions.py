"""The judge's labels are only as good as the scenes and captions behind them."""

import numpy as np
import pytest

from training.captions import draw_caption
from training.scenes import Scene, draw_scene, render
from training.stage import Plan
from training.styles import PAINT, SIZE
from training.vocabulary import COLOURS, GENERIC, OBJECTS, PAINTER_NAMES, PLAIN, STYLES, SYNONYMS


@pytest.fixture(scope="module")
def art() -> dict[str, list[np.ndarray]]:
    """A disc with a bright spot instead of the icons, which are not in the repository."""
    y, x = np.mgrid[0:160, 0:160]
    icon = np.zeros((160, 160, 4), np.uint8)
    icon[np.hypot(x - 80, y - 80) < 60] = (200, 60, 60, 255)
    icon[np.hypot(x - 60, y - 50) < 15] = (250, 240, 90, 255)
    return {name: [icon] * 3 for name in OBJECTS}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_changes_the_picture_and_keeps_its_size(art, style):
    plain = render(Scene("ball", "blue", PLAIN, "upright", 0), art, np.random.default_rng(1))
    styled = render(Scene("ball", "blue", style, "upright", 0), art, np.random.default_rng(1))
    assert styled.shape == (SIZE, SIZE, 3)
    assert styled.dtype == np.uint8
    difference = np.abs(styled.astype(int) - plain.astype(int)).mean()
    assert (difference == 0) if style == PLAIN else (difference > 5)


def test_the_same_seed_renders_the_same_picture(art):
    pictures = []
    for _ in range(2):
        rng = np.random.default_rng(5)
        pictures.append(render(draw_scene(rng), art, rng))
    assert np.array_equal(*pictures)


def test_upside_down_moves_the_bright_spot_to_the_other_half(art):
    rng = np.random.default_rng(0)
    halves = {}
    for viewpoint in ("upright", "upside down"):
        picture = render(Scene("ball", "blue", PLAIN, viewpoint, 0), art, rng).astype(int)
        spot = (picture[..., 0] > 220) & (picture[..., 1] > 200) & (picture[..., 2] < 140)
        halves[viewpoint] = spot[:32].sum() > spot[32:].sum()
    assert halves == {"upright": True, "upside down": False}


def test_captions_name_the_object_and_never_another_colour_or_style():
    rng = np.random.default_rng(3)
    names = {s: PAINTER_NAMES.get(s, (s,)) for s in STYLES[1:]}
    for _ in range(2000):
        scene = draw_scene(rng)
        caption = draw_caption(scene, rng)
        generic = [word for word, members in GENERIC.items() if scene.object in members]
        assert any(w in caption for w in (scene.object, *SYNONYMS.get(scene.object, ()), *generic))
        for colour in set(COLOURS) - {scene.colour}:
            assert f" {colour}" not in f" {caption}", caption
        for style, words in names.items():
            if style != scene.style:
                assert not any(word in caption for word in words), caption


def test_every_style_has_a_painter_function():
    assert set(PAINT) == set(STYLES)


def test_learning_rate_warms_up_then_falls_to_two_per_cent():
    plan = Plan("x", steps=1000, learning_rate=1.0, warmup=100)
    assert plan.rate(0) == pytest.approx(0.01)
    assert plan.rate(99) == pytest.approx(1.0)
    assert plan.rate(1000) == pytest.approx(0.02)
