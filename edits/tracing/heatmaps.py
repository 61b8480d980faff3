"""Pictures of effects: text encoder cells, denoiser modules, cross-attention windows, as PNG files.

Each takes from `effects` the sites that it is about and leaves the others. The same effects give
the same bytes, under the same versions of matplotlib and Pillow.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from edits.tracing.bars import module_heatmap, window_heatmap
from edits.tracing.effects import Effects, Estimate, SiteEffect
from edits.tracing.page import FAINT, FONT, INK, MARGIN, Page, decimals, label, ordered, signed

__all__ = ["module_heatmap", "text_heatmap", "window_heatmap"]

_DIVERGING = LinearSegmentedColormap.from_list(
    "signed", ["#1c4f8c", "#7aaed6", "#f8f8f6", "#f0a268", "#a63318"], N=129
)
_BLANK = "#eceef1"

_MODULES = ("self_attn", "mlp", "residual")
_POSITIONS = ("earlier", "subject", "last", "later", "words", "end", "padding")

_TEXT_SITE = re.compile(r"([^.@]+)\.(?:layers\.(\d+)\.)?([^@]+)@(.+)")
_CELL, _LAYER, _GAP = 0.6, 0.33, 0.24  # inches


@dataclass(frozen=True)
class _Cell:
    component: str
    layer: int | None
    module: str
    position: str
    effect: Estimate

    @classmethod
    def of(cls, site: SiteEffect) -> Self | None:
        match = _TEXT_SITE.fullmatch(site.site)
        if not match:
            return None
        component, layer, module, position = match.groups()
        return cls(component, int(layer) if layer else None, module, position, site.indirect)


@dataclass(frozen=True)
class _Grid:
    """One encoder's cells: a panel per module, rows of layers, columns of positions."""

    component: str
    modules: tuple[str, ...]
    layers: tuple[int | None, ...]
    positions: tuple[str, ...]
    cells: tuple[_Cell, ...]

    @classmethod
    def of(cls, component: str, cells: Iterable[_Cell]) -> Self:
        own = tuple(cell for cell in cells if cell.component == component)
        layers = sorted({c.layer for c in own}, key=lambda layer: -1 if layer is None else layer)
        return cls(
            component,
            tuple(ordered((c.module for c in own), _MODULES)),
            tuple(layers),
            tuple(ordered((c.position for c in own), _POSITIONS)),
            own,
        )

    @property
    def panel(self) -> tuple[float, float]:
        """Width and height of one panel, in inches."""
        return len(self.positions) * _CELL, len(self.layers) * _LAYER


def text_heatmap(path: Path, title: str, effects: Effects) -> None:
    """Indirect effects of text encoder sites: layers from 0 at the top, by position, by module.

    One row of panels for each encoder, all on one colour scale around 0. A cell is outlined where
    its interval excludes 0, and grey where no prompt has that site.
    Raises ValueError if no site is a text encoder's, OSError if `path` cannot be written.
    """
    cells = [cell for cell in map(_Cell.of, effects.sites) if cell]
    if not cells:
        raise ValueError("no site of a text encoder to draw")
    grids = [_Grid.of(name, cells) for name in dict.fromkeys(cell.component for cell in cells)]
    slanted = max(len(name) for grid in grids for name in grid.positions) > 9
    above, below = 0.55, 0.8 if slanted else 0.42
    widest = max(len(grid.modules) * (grid.panel[0] + _GAP) for grid in grids)
    width = max(7.4, 0.75 + widest + 1.0)
    body = sum(above + grid.panel[1] + below for grid in grids) + 0.2
    page = Page(title, effects, [cell.effect for cell in cells], width, body)
    largest = max((abs(c.effect.mean) for c in cells if math.isfinite(c.effect.mean)), default=0.0)
    bound = largest or 1.0
    top = page.top
    for grid in grids:
        across, tall = grid.panel
        bottom = top - above - tall
        page.write(MARGIN, top - 0.13, grid.component, size=9.5, weight="bold")
        for number, module in enumerate(grid.modules):
            axes = page.axes(0.75 + number * (across + _GAP), bottom, across, tall)
            _panel(axes, grid, module, bound, slanted=slanted, first=number == 0)
        top = bottom - below
    across, tall = widest, min(2.6, grids[0].panel[1])
    colour_bar = page.axes(0.75 + widest, page.top - above - tall, 0.13, tall)
    _colour_bar(colour_bar, bound)
    page.write(
        MARGIN,
        0.2,
        "outlined: the 95 % interval over prompts excludes 0      grey: no prompt has this site",
        size=7.5,
        color=FAINT,
    )
    page.save(path)


def _panel(
    axes: Axes, grid: _Grid, module: str, bound: float, *, slanted: bool, first: bool
) -> None:
    columns, rows = len(grid.positions), len(grid.layers)
    axes.set(xlim=(0, columns), ylim=(rows, 0))
    axes.add_patch(Rectangle((0, 0), columns, rows, color=_BLANK, linewidth=0))
    places = decimals(bound)
    for cell in grid.cells:
        if cell.module != module or not math.isfinite(cell.effect.mean):
            continue
        x, y = grid.positions.index(cell.position), grid.layers.index(cell.layer)
        red, green, blue, _ = _DIVERGING(0.5 + 0.5 * cell.effect.mean / bound)
        axes.add_patch(Rectangle((x, y), 1, 1, color=(red, green, blue), linewidth=0))
        strong = cell.effect.excludes_zero
        axes.text(
            x + 0.5,
            y + 0.52,
            signed(cell.effect.mean, places),
            ha="center",
            va="center",
            family=FONT,
            size=8,
            weight="bold" if strong else "normal",
            color="white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.55 else INK,
        )
        if strong:
            axes.add_patch(
                Rectangle((x + 0.05, y + 0.08), 0.9, 0.84, fill=False, ec=INK, lw=1.3, zorder=4)
            )
    for x in range(columns + 1):
        axes.axvline(x, color="white", linewidth=1.6, zorder=3)
    for y in range(rows + 1):
        axes.axhline(y, color="white", linewidth=1.6, zorder=3)
    axes.set_title(module, family=FONT, size=9, color=INK, pad=5)
    axes.set_xticks([x + 0.5 for x in range(columns)], grid.positions)
    if slanted:
        for text in axes.get_xticklabels():
            text.set(rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks([y + 0.5 for y in range(rows)] if first else [])
    if first:
        axes.set_yticklabels(["none" if layer is None else f"{layer}" for layer in grid.layers])
        label(axes, "y", "layer")


def _colour_bar(axes: Axes, bound: float) -> None:
    axes.imshow(
        [[bound * (1 - i / 20)] for i in range(41)],
        aspect="auto",
        cmap=_DIVERGING,
        extent=(0, 1, -bound, bound),
    )
    ticks = [-bound, 0, bound] if axes.bbox.height < 130 else [bound * i / 2 for i in range(-2, 3)]
    axes.set(xticks=[], yticks=ticks)
    axes.set_yticklabels([signed(tick, decimals(bound)) for tick in ticks])
    axes.yaxis.tick_right()
    axes.set_title("indirect effect", family=FONT, size=8, color=FAINT, pad=7, loc="left")
