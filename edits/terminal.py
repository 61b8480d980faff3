"""What the commands print: progress bars on a terminal, tables, JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

console = Console(stderr=True)


class Bar:
    """What advances a progress bar; `expect` sets or changes the total."""

    def __init__(self, bar: Progress, task: TaskID) -> None:
        self._bar = bar
        self._task = task

    def __call__(self, count: int) -> None:
        """So many more are done."""
        self._bar.advance(self._task, count)

    def expect(self, total: int) -> None:
        """There are so many in all."""
        self._bar.update(self._task, total=total)


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Bar]:
    """A progress bar with the time left, on a terminal only."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        yield Bar(bar, bar.add_task(title, total=total))


def show(document: Mapping[str, Any], as_json: bool, *tables: Table) -> None:
    """Print the document as JSON, or the tables."""
    if as_json:
        print(json.dumps(document, indent=2))  # noqa: T201 - the program's output
        return
    for table in tables:
        Console().print(table)


def rows_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """One row for each mapping; the first one's keys are the columns."""
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(*(f"{v:.2e}" if isinstance(v, float) else str(v) for v in row.values()))
    return table


def demo_table(report: Mapping[str, Any]) -> Table:
    """Rates before and after both edits, and what they cost."""
    table = Table(
        "what the judge sees", "before", "after", title="Two concepts removed while serving"
    )
    for title, sides in report["groups"].items():
        table.add_row(title, _percent(sides["before"]), _percent(sides["after"]))
        if "object_before" in sides:
            table.add_row(
                "  its object still right",
                _percent(sides["object_before"]),
                _percent(sides["object_after"]),
            )
    table.add_section()
    for name, edit in report["edits"].items():
        table.add_row(
            name,
            f"edit {edit['report']['edit_ms']:.1f} ms",
            f"activation {edit['activation_ms']:.1f} ms",
        )
    restored = report["restored_identical"]
    table.add_row("after withdrawal, identical", "", f"{restored['identical']} of {restored['n']}")
    return table


def evaluation_table(document: Mapping[str, Any]) -> Table:
    """Rates before and after one edit, with Wilson's 95 per cent intervals."""
    table = Table("", "before", "after", "mean drop", "worst class", title=str(document["name"]))
    target = document["target"]
    table.add_row("target rate", _interval(target["before"]), _interval(target["after"]), "", "")
    if "object_after" in target:
        table.add_row("  its object still right", "", _interval(target["object_after"]), "", "")
    for key in ("other_objects", "other_styles"):
        part = document[key]
        table.add_row(
            key.replace("_", " "),
            _interval(part["before"]),
            _interval(part["after"]),
            f"{100 * part['mean_drop']:.1f}",
            f"{part['worst_class']} {100 * part['worst_drop']:.1f}",
        )
    return table


def model_table(document: Mapping[str, Any]) -> Table:
    """Rates of the unedited model by attribute."""
    table = Table("", "right", "weakest class", title=f"{document['images']} pictures, no edit")
    for attribute in ("object", "style", "colour"):
        part = document[attribute]
        weakest = part["weakest"]
        table.add_row(attribute, _interval(part), f"{weakest['class']} {_percent(weakest)}")
    return table


def trace_tables(document: Mapping[str, Any], top: int) -> list[Table]:
    """For each attribute the strongest sites by the first scorer, with what the others say."""
    by = "direct" if document["options"]["target"] == "cross-attention" else "indirect"
    tables = []
    for attribute, found in document["attributes"].items():
        scorers = document["scorers"]
        first = found["effects"][scorers[0]]
        total = f"total effect {_effect(first['total'])} by {scorers[0]}"
        table = Table("", title=f"{attribute}: {by} effects; {total}")
        table.add_column("site", overflow="fold")
        for name in (*scorers, "share"):
            table.add_column(name, no_wrap=True)
        others = {
            name: {site["site"]: site for site in found["effects"][name]["sites"]}
            for name in scorers
        }
        order = sorted(first["sites"], key=lambda site: -(site[by]["mean"] or 0.0))
        for place, site in enumerate(order[:top], start=1):
            cells = [_effect(others[name][site["site"]][by]) for name in scorers]
            part = site["share"] if by == "indirect" or site["share"] is None else 1 - site["share"]
            share = "" if part is None else f"{100 * part:.0f} %"
            table.add_row(str(place), site["site"], *cells, share)
        tables.append(table)
    return tables


def _effect(estimate: Mapping[str, Any]) -> str:
    if estimate["mean"] is None:
        return "-"
    if estimate["low"] is None:
        return f"{estimate['mean']:+.3f}"
    return f"{estimate['mean']:+.3f} [{estimate['low']:+.3f}, {estimate['high']:+.3f}]"


def _percent(rate: Mapping[str, Any]) -> str:
    return f"{100 * rate['rate']:.1f} % (n={rate['n']})"


def _interval(rate: Mapping[str, Any]) -> str:
    low, high = 100 * rate["low"], 100 * rate["high"]
    return f"{_percent(rate)} [{low:.1f}, {high:.1f}]"
