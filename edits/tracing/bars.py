"""Bars with intervals: one for each module of a denoiser, or window of cross-attention layers."""

import math
import re
from collections.abc import Sequence
from itertools import accumulate, groupby, pairwise
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from edits.tracing.effects import Effects, Estimate
from edits.tracing.page import (
    BAND,
    FAINT,
    FONT,
    GUIDE,
    INK,
    MARGIN,
    Page,
    decimals,
    label,
    signed,
)

_KINDS = {
    "resnets": ("resnet", "#868c96"),
    "attn1": ("self-attention (attn1)", "#d1662b"),
    "attn2": ("cross-attention (attn2)", "#2b6cb0"),
    "attn": ("joint attention (attn)", "#7b4fa3"),
    "ff": ("feed-forward (ff)", "#2f9e77"),
    "ff_context": ("feed-forward of the text (ff_context)", "#b3a125"),
}
# Beside a joint attention, attn2 is the image's own and reads no text.
_IMAGE_ATTENTION = ("self-attention (attn2)", "#d1662b")
_OTHERS = ("#c2417c", "#1b98a6", "#8c6d46", "#4c566a")

_WINDOW_SITE = re.compile(r"[^.@]+\[(\d+):(\d+)\]")
_BLOCK = re.compile(r"[^.]+\.(?:(down|up)_blocks\.(\d+)|(mid)_block)\.")

_TRANSFORMER = re.compile(r"transformer_blocks\.(\d+)\.")
_MODULE_BARS, _WINDOW_BARS = 3.1, 2.8
_LEFT = 0.95  # inches in front of an axis


def module_heatmap(path: Path, title: str, effects: Effects) -> None:
    """Indirect effects of denoiser modules in the order of `effects`, coloured by kind.

    Bars have their 95 per cent interval and are pale where it holds 0; guides stand between
    blocks. All modules are named where their names fit, else the strongest ones.
    Raises ValueError if no site is a denoiser's, OSError if `path` cannot be written.
    """
    sites = [s for s in effects.sites if "@" not in s.site and not _WINDOW_SITE.fullmatch(s.site)]
    if not sites:
        raise ValueError("no site of a denoiser to draw")
    width = max(7.8, _LEFT + MARGIN + len(sites) * min(0.32, max(0.085, 13.5 / len(sites))))
    slot = (width - _LEFT - MARGIN) / len(sites)
    names = _short([site.site for site in sites])
    estimates = [site.indirect for site in sites]
    named = _named(estimates, slot)
    blocks = [_block(site.site) for site in sites]
    below = 0.5 + 0.055 * max(len(names[i]) for i in named)
    block_names, upright = _block_names(blocks, slot)
    kinds = [_kind(site.site) for site in sites]
    looks = _looks(kinds)
    legend = 0.2 + 0.19 * -(-len(looks) // 4)
    lines = 1 + max(name.count("\n") for name in block_names)
    above = legend + (0.46 if upright else 0.1 + 0.14 * lines if any(blocks) else 0.05)
    page = Page(title, effects, estimates, width, above + _MODULE_BARS + below)
    axes = page.axes(_LEFT, below, len(sites) * slot, _MODULE_BARS)
    _bars(axes, estimates, [looks[kind][1] for kind in kinds], width=0.74)
    label(axes, "y", "indirect effect")
    axes.set_xticks(named, [names[i] for i in named], rotation=90)
    axes.tick_params(axis="x", labelsize=7, pad=3)
    _mark_blocks(axes, blocks, block_names, upright)
    handles = [Patch(color=colour, label=name) for name, colour in looks.values()]
    page.legend(handles, page.top - legend + 0.13)
    _bar_note(page)
    page.save(path)


def window_heatmap(path: Path, title: str, effects: Effects) -> None:
    """Direct effects of windows of cross-attention layers, with 95 per cent intervals.

    A dashed line marks the total effect: what all layers together would have.
    Raises ValueError if no site is a window, OSError if `path` cannot be written.
    """
    matches = [(_WINDOW_SITE.fullmatch(site.site), site.direct) for site in effects.sites]
    windows = [(int(m[1]), int(m[2]), direct) for m, direct in matches if m]
    if not windows:
        raise ValueError("no window of cross-attention layers to draw")
    width = max(6.6, _LEFT + 0.9 + len(windows) * min(0.8, max(0.2, 12 / len(windows))))
    slot = (width - _LEFT - 0.9) / len(windows)
    estimates = [direct for _, _, direct in windows]
    names = [f"{a}" if b - a == 1 else f"{a}\N{EN DASH}{b - 1}" for a, b, _ in windows]
    upright = 0.085 * max(map(len, names)) > slot
    below = 0.72 + (0.3 if upright else 0.1)
    page = Page(title, effects, estimates, width, 0.2 + _WINDOW_BARS + below)
    axes = page.axes(_LEFT, below, len(windows) * slot, _WINDOW_BARS)
    _bars(axes, estimates, [_KINDS["attn2"][1]] * len(windows), width=0.6)
    if slot > 0.45:
        _print_values(axes, estimates)
    _mark_total(axes, effects.total.mean)
    axes.set_xticks(range(len(windows)), names, rotation=90 if upright else 0)
    label(axes, "x", "cross-attention layers of the window, in execution order from 0")
    label(axes, "y", "direct effect")
    _bar_note(page)
    page.save(path)


def _bars(axes: Axes, estimates: Sequence[Estimate], colours: Sequence[str], width: float) -> None:
    """Bars at 0, 1, 2, … with their intervals; pale where the interval holds zero."""
    means = np.array([e.mean for e in estimates])
    lows, highs = (np.array([getattr(e, side) for e in estimates]) for side in ("low", "high"))
    there = np.isfinite(means)
    for place in np.flatnonzero(there).tolist():
        low, high = lows[place], highs[place]
        colour = _pale(colours[place]) if low <= 0 <= high else colours[place]
        axes.bar(place, means[place], width, color=colour, zorder=3)
        axes.vlines(place, low, high, color=INK, linewidth=0.9, zorder=4)
    reach = np.concatenate([means, lows, highs, [0.0]])
    reach = reach[np.isfinite(reach)]
    low, high = float(reach.min()), float(reach.max())
    room = 0.06 * (high - low) or 1.0
    axes.set_ylim(low - (room if low < 0 else 0), high + room)
    axes.set_xlim(-0.5, len(estimates) - 0.5)
    axes.axhline(0, color=FAINT, linewidth=0.8, zorder=5)
    axes.grid(axis="y", color=GUIDE, linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    places = decimals(max(abs(low), abs(high)))
    axes.yaxis.set_major_formatter(lambda value, _place: signed(value, places))


def _pale(colour: str) -> str:
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - 0.38 * (255 - c)):02x}" for c in channels)


def _print_values(axes: Axes, estimates: Sequence[Estimate]) -> None:
    places = decimals(max((abs(e.mean) for e in estimates if math.isfinite(e.mean)), default=0.0))
    for place, estimate in enumerate(estimates):
        if math.isfinite(estimate.mean):
            top = max(0.0, estimate.mean, estimate.high if estimate.high > 0 else 0.0)
            axes.annotate(
                signed(estimate.mean, places),
                (place, top),
                (0, 3),
                textcoords="offset points",
                ha="center",
                va="bottom",
                family=FONT,
                size=8,
                color=INK,
            )


def _mark_blocks(axes: Axes, blocks: Sequence[str], names: Sequence[str], upright: bool) -> None:
    start = 0
    for number, (name, (_, members)) in enumerate(zip(names, groupby(blocks), strict=True)):
        stop = start + len(list(members))
        if number % 2 == 0 and len(names) > 1:
            axes.axvspan(start - 0.5, stop - 0.5, color=BAND, linewidth=0, zorder=0)
        if start:
            axes.axvline(start - 0.5, color=FAINT, linewidth=0.8, zorder=1)
        axes.annotate(
            name,
            ((start + stop - 1) / 2, 1),
            (0, 4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="bottom",
            rotation=90 if upright else 0,
            family=FONT,
            size=8,
            color=FAINT,
        )
        start = stop


def _mark_total(axes: Axes, total: float) -> None:
    if not math.isfinite(total):
        return
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, 1.08 * total), max(high, 1.08 * total))
    axes.axhline(total, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), zorder=2)
    axes.annotate(
        "total",
        (1, total),
        (4, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va="center",
        family=FONT,
        size=8,
        color=INK,
    )


def _bar_note(page: Page) -> None:
    note = "lines: 95 % interval over prompts      pale: the interval holds 0"
    page.write(MARGIN, 0.2, note, size=7.5, color=FAINT)


def _kind(site: str) -> str:
    """The last part of a path that is no number: attn1, ff, resnets."""
    return next(part for part in [*reversed(site.split(".")), site] if not part.isdigit())


def _looks(kinds: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Name and colour of each kind that occurs, in the order of the legend."""
    others = [kind for kind in dict.fromkeys(kinds) if kind not in _KINDS]
    looks = _KINDS | {k: (k, _OTHERS[i % len(_OTHERS)]) for i, k in enumerate(others)}
    if "attn" in kinds:
        looks["attn2"] = _IMAGE_ATTENTION
    return {kind: look for kind, look in looks.items() if kind in kinds}


def _block(site: str) -> str:
    match = _BLOCK.match(site)
    return " ".join(part for part in match.groups() if part) if match else ""


def _short(sites: Sequence[str]) -> list[str]:
    """Paths without component and block, which stand above, and without `0` where all have it."""
    paths = []
    for site in sites:
        match = _BLOCK.match(site)
        paths.append(site[match.end() :] if match else site.partition(".")[2] or site)
    if {number for path in paths for number in _TRANSFORMER.findall(path)} == {"0"}:
        return [_TRANSFORMER.sub("", path) for path in paths]
    return [path.replace("transformer_blocks.", "blocks.") for path in paths]


def _named(estimates: Sequence[Estimate], slot: float) -> list[int]:
    """The places whose names fit under bars `slot` inches apart, the strongest first."""
    apart = 0.125
    if slot >= apart:
        return list(range(len(estimates)))
    chosen: list[int] = []
    strength = [abs(e.mean) if math.isfinite(e.mean) else -1.0 for e in estimates]
    for place in sorted(range(len(estimates)), key=lambda i: -strength[i]):
        if all(abs(place - other) * slot >= apart for other in chosen):
            chosen.append(place)
        if len(chosen) == 16:
            break
    return sorted(chosen)


def _block_names(blocks: Sequence[str], slot: float) -> tuple[list[str], bool]:
    """A name for each run of one block, on two lines or upright where they would touch."""
    names = [name for name, _ in groupby(blocks)]
    ends = accumulate(len(list(members)) for _, members in groupby(blocks))
    centres = [slot * (a + b) / 2 for a, b in pairwise([0, *ends])]
    apart = min((b - a for a, b in pairwise(centres)), default=1.0)
    if 0.38 <= apart < 0.55:
        names = [name.replace(" ", "\n") for name in names]
    return names, apart < 0.38
