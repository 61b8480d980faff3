"""One page with a picture of effects: measured in inches, with a heading, saved as a small PNG.

Only matplotlib's objects are used: pyplot keeps figures and a backend for the whole process.
"""

import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from edits.tracing.effects import Effects, Estimate

INK, FAINT, GUIDE, BAND = "#1f2430", "#667080", "#e3e6ea", "#f5f6f8"
FONT = "DejaVu Sans"  # comes with matplotlib
MARGIN = 0.3  # inches

_DPI = 120
_MINUS = "\N{MINUS SIGN}"


class Page:
    """A white page `width` inches wide under a heading, with `body` inches for the picture."""

    def __init__(
        self, title: str, effects: Effects, drawn: Sequence[Estimate], width: float, body: float
    ) -> None:
        titles = textwrap.wrap(title, int((width - 2 * MARGIN) / 0.13)) or [""]
        summary = _wrapped(_summary(effects, drawn), int((width - 2 * MARGIN) / 0.06))
        heading = MARGIN + 0.25 * len(titles) + 0.18 * len(summary)
        self.width, self.height, self.top = width, heading + body, body
        self._figure = Figure(figsize=(width, self.height), dpi=_DPI, facecolor="white")
        self._canvas = FigureCanvasAgg(self._figure)
        down = self.height - MARGIN + 0.06
        for line in titles:
            self.write(MARGIN, down, line, size=13, weight="bold", va="top")
            down -= 0.25
        for line in summary:
            self.write(MARGIN, down - 0.02, line, size=8.5, color=FAINT, va="top")
            down -= 0.18

    def axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        """Axes without a frame at this place, in inches from the lower left corner."""
        across, up = self.width, self.height
        axes = self._figure.add_axes(
            (left / across, bottom / up, width / across, height / up), facecolor="none"
        )
        axes.tick_params(length=0, labelsize=8, labelcolor=INK, labelfontfamily=FONT)
        for side in axes.spines.values():
            side.set_visible(False)
        return axes

    def write(self, left: float, bottom: float, text: str, **how: Any) -> None:
        """Text at this place, in inches."""
        how = {"color": INK, "family": FONT, "size": 8, "va": "center", "parse_math": False, **how}
        self._figure.text(left / self.width, bottom / self.height, text, **how)

    def legend(self, handles: Sequence[Patch], bottom: float) -> None:
        """Names of colours, four in a row, from the left margin on."""
        legend = self._figure.legend(
            handles=list(handles),
            loc="lower left",
            bbox_to_anchor=(MARGIN / self.width, bottom / self.height),
            ncols=4,
            frameon=False,
            borderpad=0,
            borderaxespad=0,
            handlelength=1.0,
            handleheight=0.9,
            handletextpad=0.5,
            columnspacing=1.4,
            prop={"family": FONT, "size": 8},
        )
        for text in legend.get_texts():
            text.set_color(INK)

    def save(self, path: Path) -> None:
        """Write the PNG; no date or version goes into it. Raises OSError if that fails."""
        self._canvas.draw()  # type: ignore[no-untyped-call]
        pixels = np.asarray(self._canvas.buffer_rgba())  # type: ignore[no-untyped-call]
        _with_palette(pixels[..., :3]).save(path, format="PNG", optimize=True)


def decimals(largest: float) -> int:
    """Places behind the point that show numbers up to `largest` with two digits or more."""
    if not largest > 0:
        return 2
    return min(6, max(0, 1 - math.floor(math.log10(largest) + 1e-9)))


def signed(value: float, places: int) -> str:
    """The number with a true minus sign, and none on zero."""
    text = f"{abs(value):.{places}f}"
    return f"{_MINUS}{text}" if value < 0 and float(text) else text


def label(axes: Axes, side: str, text: str) -> None:
    """Name an axis, "x" or "y"."""
    axis = axes.xaxis if side == "x" else axes.yaxis
    axis.set_label_text(text, family=FONT, size=8.5, color=FAINT)
    axis.labelpad = 6


def ordered(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """Distinct names: known ones in their order (`subject N` by N), then others as they come."""

    def place(name: str) -> tuple[int, int]:
        word, _, number = name.partition(" ")
        if word not in known:
            return len(known), 0
        return known.index(word), int(number) if number.isdigit() else 0

    return sorted(dict.fromkeys(names), key=place)


def _with_palette(pixels: NDArray[np.uint8]) -> Image.Image:
    """The picture in 256 of its own colours: each next one mends the largest error so far."""
    packed = (pixels.astype(np.int64) * (65536, 256, 1)).sum(axis=-1)
    colours, places, counts = np.unique(packed, return_inverse=True, return_counts=True)
    channels = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=-1)
    chosen = channels[[counts.argmax()]]
    nearest = np.zeros(len(colours), dtype=np.uint8)
    errors = ((channels - chosen[0]) ** 2).sum(axis=-1)
    while errors.any() and len(chosen) < 256:
        worst = channels[(counts * errors).argmax()]
        distances = ((channels - worst) ** 2).sum(axis=-1)
        nearest[distances < errors] = len(chosen)
        errors = np.minimum(errors, distances)
        chosen = np.vstack([chosen, worst])
    picture = Image.fromarray(nearest[places.reshape(packed.shape)])
    picture.putpalette(chosen.astype(np.uint8).tobytes())
    return picture


def _summary(effects: Effects, drawn: Sequence[Estimate]) -> list[str]:
    total = effects.total
    levels = [abs(x) for x in (effects.clean.mean, effects.corrupted.mean) if math.isfinite(x)]
    places = max(2, decimals(max(levels, default=0.0)), decimals(abs(total.mean)))
    between = ""
    if math.isfinite(total.low):
        between = f" [{signed(total.low, places)}, {signed(total.high, places)}]"
    parts = [
        f"clean {signed(effects.clean.mean, places)}",
        f"corrupted {signed(effects.corrupted.mean, places)}",
        f"total effect {signed(total.mean, places)}{between}",
        f"{_span([e.prompts for e in drawn], 'prompt')}",
        f"{_span([e.runs for e in drawn], 'run')}",
    ]
    if not between:
        parts.append("no intervals")
    return parts


def _wrapped(parts: Sequence[str], width: int) -> list[str]:
    lines = [parts[0]]
    for part in parts[1:]:
        longer = f"{lines[-1]}  ·  {part}"
        if len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines


def _span(numbers: Sequence[int], noun: str) -> str:
    low, high = min(numbers), max(numbers)
    several = "" if high == 1 else "s"
    return f"{high} {noun}{several}" if low == high else f"{low} to {high} {noun}{several}"
