"""Figures of an evaluation's document as text, with their intervals: the same in every report."""

from collections.abc import Mapping, Sequence
from typing import Any

MINUS = "\N{MINUS SIGN}"

Figure = Mapping[str, Any]


def percent(rate: Figure) -> str:
    """A rate with Wilson's interval: "3.0 % [1.0, 8.5]"."""
    return f"{share(rate)} {bounds(rate)}"


def share(rate: Figure) -> str:
    """A rate alone, with a digit more where more than a thousand pictures are behind it."""
    return f"{100 * rate['rate']:.{_places(rate)}f} %"


def bounds(rate: Figure) -> str:
    """Its interval in per cent: "[1.0, 8.5]"."""
    low, high = (f"{100 * rate[key]:.{_places(rate)}f}" for key in ("low", "high"))
    return f"[{low}, {high}]"


def counted(rate: Figure) -> str:
    """A rate's pictures: "3 of 100"."""
    return f"{rate['hits']} of {rate['n']}"


def points(drop: Figure, *, value: bool = True, bounds: bool = True) -> str:
    """A drop in points, its interval, or both: "1.0 [-0.9, 5.4]"; a rise has a minus."""
    middle, low, high = (_signed(100 * drop[key], 1) for key in ("value", "low", "high"))
    return " ".join([middle] * value + [f"[{low}, {high}]"] * bounds)


def mean(score: Figure) -> str:
    """A mean with its bootstrap interval: "0.812 [0.800, 0.824]"."""
    if score["low"] is None:
        return _signed(score["mean"], 3)
    value, low, high = (_signed(score[key], 3) for key in ("mean", "low", "high"))
    return f"{value} [{low}, {high}]"


def exact(number: float) -> str:
    """A number to six digits; zero is written 0 only where it is exactly zero."""
    return "0" if number == 0 else f"{number:.6g}"


def worst(found: Figure | None) -> str:
    """The class that fell most, with its pictures: "knife 8 to 5 of 8"; nothing if none fell."""
    if found is None:
        return ""
    before, after = found["before"], found["after"]
    return f"{found['class']} {before['hits']} to {after['hits']} of {after['n']}"


def seen(classes: Sequence[Figure]) -> str:
    """What the judge sees in a target's pictures after the edit: "ball 61, robot 20"."""
    return ", ".join(f"{found['class']} {found['after']}" for found in classes)


def method(settings: Figure) -> str:
    """How an edit was computed, in one line: "last, ridge 0.01, preserve_weight 0.03"."""
    shown = {k: v for k, v in settings.items() if isinstance(v, int | float) and v is not False}
    parts = [f"{name} {value:g}" for name, value in shown.items() if value is not True]
    return ", ".join([settings["tokens"], *parts, *settings["sites"]])


def _places(rate: Figure) -> int:
    return 2 if rate["n"] > 1000 else 1


def _signed(value: float, places: int) -> str:
    text = f"{abs(value):.{places}f}"
    return f"{MINUS}{text}" if value < 0 and float(text) else text
