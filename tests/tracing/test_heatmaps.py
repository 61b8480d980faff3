"""Pictures of effects: what is in them, and that the same effects give the same bytes."""

import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edits.tracing.effects import Effects, Estimate, SiteEffect, effects
from edits.tracing.heatmaps import module_heatmap, text_heatmap, window_heatmap
from edits.tracing.page import decimals, ordered, signed

Draw = Callable[[Path, str, Effects], None]

WARMEST, COLDEST, BLANK, INK = (166, 51, 24), (28, 79, 140), (236, 238, 241), (31, 36, 48)
ATTN1, PALE_ATTN1, PURPLE = (209, 102, 43), (238, 197, 174), (123, 79, 163)

TEXT = tuple(
    f"text_encoder.layers.{layer}.{module}@{position}"
    for layer in range(4)
    for module in ("self_attn", "mlp", "residual")
    for position in ("subject 1", "subject 2", "last", "later", "padding")
)
BLOCKS = (
    "down_blocks.0",
    "down_blocks.1",
    "down_blocks.2",
    "mid_block",
    "up_blocks.0",
    "up_blocks.1",
)
UNET = tuple(
    f"unet.{block}.{part}"
    for block in BLOCKS
    for part in (
        "resnets.0",
        "attentions.0.transformer_blocks.0.attn1",
        "attentions.0.transformer_blocks.0.attn2",
        "attentions.0.transformer_blocks.0.ff",
        "resnets.1",
    )
)
WINDOWS = tuple(f"cross-attention[{i}:{i + 2}]" for i in range(4))
PICTURES = [(text_heatmap, TEXT), (module_heatmap, UNET), (window_heatmap, WINDOWS)]


def traced(sites: Sequence[str], *, prompts: int = 12, seed: int = 0) -> Effects:
    random = np.random.default_rng(seed)
    truth = np.array([0.9, 0.1, *(0.1 + 0.8 * random.beta(0.4, 2, len(sites)))])
    scores = truth + 0.05 * random.normal(size=(prompts, 2, 2, len(truth)))
    return effects(scores, ("clean", "corrupted", *sites), resamples=200)


def of(values: dict[str, tuple[float, float, float]]) -> Effects:
    """Effects whose sites have these means and bounds, both indirect and direct."""
    level = Estimate(0.9, 0.8, 1.0, 12, 48)
    sites = []
    for name, bounds in values.items():
        estimate = Estimate(*bounds, 12, 48)
        sites.append(SiteEffect(name, estimate, estimate, None))
    return Effects(level, level, level, tuple(sites))


def areas(path: Path) -> dict[tuple[int, ...], int]:
    """Pixels by colour."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    return {tuple(c): int(n) for c, n in zip(colours.tolist(), counts, strict=True)}


@pytest.mark.parametrize(("draw", "sites"), PICTURES)
def test_a_demo_sized_picture_is_a_small_png_without_dates_or_versions(
    tmp_path: Path, draw: Draw, sites: tuple[str, ...]
):
    path = tmp_path / "picture.png"
    draw(path, "object, demo, by judge", traced(sites))
    assert path.stat().st_size < 60_000
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.info == {}
        assert 700 <= picture.width <= 1500
        assert 350 <= picture.height <= 900
        assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize(("draw", "sites"), PICTURES)
def test_the_same_effects_give_the_same_bytes_and_others_do_not(
    tmp_path: Path, draw: Draw, sites: tuple[str, ...]
):
    names = [tmp_path / f"{i}.png" for i in range(3)]
    for path, seed in zip(names, (0, 0, 1), strict=True):
        draw(path, "title", traced(sites, seed=seed))
    first, again, other = (path.read_bytes() for path in names)
    assert first == again
    assert first != other


@pytest.mark.parametrize(("draw", "sites"), PICTURES)
def test_each_picture_takes_its_own_sites_from_mixed_effects(
    tmp_path: Path, draw: Draw, sites: tuple[str, ...]
):
    mixed = traced((*TEXT, *UNET, *WINDOWS))
    own = Effects(
        mixed.clean,
        mixed.corrupted,
        mixed.total,
        tuple(site for site in mixed.sites if site.site in sites),
    )
    draw(tmp_path / "mixed.png", "title", mixed)
    draw(tmp_path / "own.png", "title", own)
    assert (tmp_path / "mixed.png").read_bytes() == (tmp_path / "own.png").read_bytes()


@pytest.mark.parametrize(("draw", "sites"), PICTURES)
def test_effects_without_sites_of_that_kind_are_refused(
    tmp_path: Path, draw: Draw, sites: tuple[str, ...]
):
    others = tuple({*TEXT[:2], *UNET[:2], *WINDOWS[:2]} - {*sites})
    with pytest.raises(ValueError, match="to draw"):
        draw(tmp_path / "picture.png", "title", traced(others))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("draw", "sites"), PICTURES)
def test_one_prompt_has_no_interval_and_is_drawn(
    tmp_path: Path, draw: Draw, sites: tuple[str, ...]
):
    draw(tmp_path / "picture.png", "title", traced(sites, prompts=1))
    assert areas(tmp_path / "picture.png")[255, 255, 255] > 50_000


@pytest.mark.parametrize(("draw", "sites"), PICTURES)
def test_sites_that_no_prompt_has_are_drawn_as_holes(
    tmp_path: Path, draw: Draw, sites: tuple[str, ...]
):
    nothing = (math.nan, math.nan, math.nan)
    draw(tmp_path / "all.png", "title", of(dict.fromkeys(sites, nothing)))
    values = dict.fromkeys(sites, (0.5, 0.4, 0.6)) | {sites[0]: nothing}
    draw(tmp_path / "one.png", "title", of(values))
    for name in ("all.png", "one.png"):
        assert areas(tmp_path / name)[255, 255, 255] > 50_000
    assert (tmp_path / "all.png").read_bytes() != (tmp_path / "one.png").read_bytes()


def test_cells_are_warm_for_help_cold_for_harm_and_grey_where_nothing_was_run(tmp_path: Path):
    values = {
        "text_encoder.layers.0.mlp@last": (0.4, 0.3, 0.5),
        "text_encoder.layers.1.mlp@later": (-0.4, -0.5, -0.3),
    }
    text_heatmap(tmp_path / "picture.png", "title", of(values))
    found = areas(tmp_path / "picture.png")
    assert found[WARMEST] > 1000
    assert found[COLDEST] > 1000
    assert found[BLANK] > 2000


def test_a_cell_is_outlined_where_its_interval_excludes_zero(tmp_path: Path):
    ink = []
    for low in (0.1, -0.1):
        values = {"text_encoder.layers.0.mlp@last": (0.4, low, 0.5)}
        text_heatmap(tmp_path / "picture.png", "title", of(values))
        ink.append(areas(tmp_path / "picture.png")[INK])
    assert ink[0] > ink[1] + 200


def test_a_bar_is_pale_where_its_interval_holds_zero(tmp_path: Path):
    site = "unet.mid_block.attentions.0.transformer_blocks.0.attn1"
    for low, bar, legend_only in ((0.1, ATTN1, PALE_ATTN1), (-0.1, PALE_ATTN1, ATTN1)):
        module_heatmap(tmp_path / "picture.png", "title", of({site: (0.4, low, 0.5)}))
        found = areas(tmp_path / "picture.png")
        assert found[bar] > 20_000
        assert found.get(legend_only, 0) < 500


def test_both_encoders_stand_on_one_page(tmp_path: Path):
    second = tuple(site.replace("text_encoder", "text_encoder_2") for site in TEXT)
    text_heatmap(tmp_path / "one.png", "title", traced(TEXT))
    text_heatmap(tmp_path / "two.png", "title", traced(TEXT + second))
    with Image.open(tmp_path / "one.png") as one, Image.open(tmp_path / "two.png") as two:
        assert two.width == one.width
        assert two.height > one.height + 200


def test_kinds_modules_and_positions_of_no_known_name_are_drawn(tmp_path: Path):
    path = tmp_path / "picture.png"
    module_heatmap(path, "title", traced(("unet.conv_in", "vae.1.2", "x", "unet.mid_block.new.0")))
    assert areas(path)[194, 65, 124] > 500
    text_heatmap(path, "title", traced(("a.embeddings@last", "a.layers.3.lora@a long new place")))
    with Image.open(path) as picture:
        assert picture.height > 300
    sd3 = tuple(f"transformer.transformer_blocks.{i}.{k}" for i in range(3) for k in ("attn", "ff"))
    module_heatmap(path, "title", of(dict.fromkeys(sd3, (0.3, 0.2, 0.4))))
    assert areas(path)[PURPLE] > 1000


@pytest.mark.parametrize("count", [1, 15, 70, 230])
def test_a_picture_of_few_or_many_modules_stays_of_readable_size(tmp_path: Path, count: int):
    sites = [f"unet.down_blocks.{i // 20}.attentions.{i % 20}.attn1" for i in range(count)]
    module_heatmap(tmp_path / "picture.png", "title", traced(sites))
    with Image.open(tmp_path / "picture.png") as picture:
        assert 900 <= picture.width <= 2600
        assert picture.height < 900
    assert (tmp_path / "picture.png").stat().st_size < 120_000


def test_a_long_title_is_wrapped_and_its_signs_are_no_formula(tmp_path: Path):
    window_heatmap(tmp_path / "short.png", "title", traced(WINDOWS))
    window_heatmap(tmp_path / "long.png", "price $x^2$ and \\frac " * 8, traced(WINDOWS))
    with Image.open(tmp_path / "short.png") as short, Image.open(tmp_path / "long.png") as long:
        assert long.width == short.width
        assert long.height > short.height + 50


def test_a_folder_that_does_not_exist_is_an_os_error(tmp_path: Path):
    with pytest.raises(OSError, match="nowhere"):
        window_heatmap(tmp_path / "nowhere" / "picture.png", "title", traced(WINDOWS))


def test_drawing_leaves_no_global_state_of_matplotlib():
    code = "import sys, edits.tracing.heatmaps as h; assert 'matplotlib.pyplot' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("value", "places", "text"),
    [(0.5, 2, "0.50"), (-0.25, 2, "\N{MINUS SIGN}0.25"), (-0.001, 2, "0.00"), (12.0, 0, "12")],
)
def test_numbers_have_a_true_minus_and_none_on_zero(value: float, places: int, text: str):
    assert signed(value, places) == text


def test_numbers_are_printed_with_two_digits_of_the_largest():
    assert [decimals(x) for x in (0, math.nan, 0.78, 0.023, 0.1, 1, 7.5, 31)] == (
        [2, 2, 2, 3, 2, 1, 1, 0]
    )


def test_positions_stand_in_the_order_of_the_tokens_and_unknown_ones_last():
    names = ["padding", "new", "last", "subject 10", "subject 2", "earlier", "last"]
    known = ("earlier", "subject", "last", "padding")
    assert ordered(names, known) == (
        ["earlier", "subject 2", "subject 10", "last", "padding", "new"]
    )
