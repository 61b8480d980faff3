"""What the commands print: progress bars on a terminal, tables, JSON."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from edits.evaluation import figures

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
    """One row for each mapping, as it is written: `[x]` is no markup. The first one's keys are the
    columns.
    """
    table = Table(*rows[0], title=title)
    for row in rows:
        table.add_row(
            *(f"{v:.2e}" if isinstance(v, float) else escape(str(v)) for v in row.values())
        )
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


def evaluation_tables(document: Mapping[str, Any]) -> list[Table]:
    """What is left of every concept, what was to stay, CLIPScores, and the rest in one table."""
    names = ", ".join(edit["name"] for edit in document["edits"])
    several = len(document["edits"]) > 1
    target = Table(*("edit",) * several, "asked for", "before", "after", "left", "seen after")
    target.title = f"{names}: what is left of the concept"
    for group in document["targets"]:
        scored = group[group["scored_by"]]
        target.add_row(
            *(group["edit"],) * several,
            group["title"],
            _tight(figures.percent(scored["before"])),
            _tight(figures.percent(scored["after"])),
            figures.counted(group["left"]),
            figures.seen(group["seen"]),
        )
    kept = Table("what was to stay", "before", "after", "n", "drop in points", "worst class")
    for group in document["retained"]:
        kept.add_row(
            group["title"],
            _tight(figures.percent(group["before"])),
            _tight(figures.percent(group["after"])),
            str(group["n"]),
            _tight(figures.points(group["drop"])),
            figures.worst(group["worst_class"]) or "none fell",
        )
    clip = Table("CLIPScore", "before", "after", "after - before", "n")
    for name, change in (document["clip_score"] or {}).items():
        sides = (change["before"], change["after"], change["difference"])
        clip.add_row(
            name, *(_tight(figures.mean(side)) for side in sides), str(change["difference"]["n"])
        )
    tables = [table for table in (target, kept, clip) if table.row_count]
    return [*tables, _frame_table(document)]


def _frame_table(document: Mapping[str, Any]) -> Table:
    """Empty prompt and judge."""
    table = Table("", "found")
    drift = document["empty_prompt"]
    pictures = drift["pictures"]
    table.add_row(
        "empty prompt, embedding",
        f"max {figures.exact(drift['max_abs'])}, relative {figures.exact(drift['relative'])}",
    )
    table.add_row(
        "empty prompt, pictures",
        f"{pictures['identical']} of {pictures['n']} identical, max {pictures['max']} of 255",
    )
    judge = document["judge"]
    table.add_row("judged wrong before the edit", _wrong(judge["unedited"]))
    views = judge["held_out"]["views"] if judge["held_out"] else {}
    for view, attributes in views.items():
        table.add_row(f"judged wrong, held-out renders {view}", _wrong(attributes))
    return table


def _wrong(attributes: Mapping[str, Any]) -> str:
    return "\n".join(
        f"{name} {figures.counted(rate)}, {_tight(figures.percent(rate))}"
        for name, rate in attributes.items()
    )


def _tight(figure: str) -> str:
    """A figure that a narrow table breaks before its interval only."""
    return figure.replace(", ", ",").replace(" %", "%")


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
