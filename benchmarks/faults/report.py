"""What the rows say: a table for the eye, and the breaches that decide the exit code."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["Row", "breaches", "table"]

Row = dict[str, Any]

_FAILED = "500"  # is promised of no fault; 503 is the honest answer of one


def table(rows: Mapping[str, Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| fault | users saw | operator saw | p95 during, after | lost "
        "| users, all replicas back after |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in rows.items():
        if "skipped" in row:
            lines.append(f"| {name} | skipped: {row['skipped']} | | | | |")
            continue
        saw, operator = _counted(row["answers"]), _counted(row["operator"])
        lost = "nothing" if not row["lost"] else f"{len(row['lost'])}: {row['lost'][0]}"
        times = f"{row['p95_seconds']} s, {row['p95_seconds_after']} s"
        back = f"{row['users_back_seconds']} s, {row['replicas_back_seconds']} s"
        lines.append(f"| {name} | {saw} | {operator} | {times} | {lost} | {back} |")
    return "\n".join(lines)


def breaches(rows: Mapping[str, Row], *, within: float) -> Iterator[str]:
    """One sentence for everything that must not be; `within` is in seconds."""
    for name, row in rows.items():
        if "skipped" in row:
            continue
        for lost in row["lost"]:
            yield f"{name}: {lost}"
        for who, counts in (("users", row["answers"]), ("the operator", row["operator"])):
            if failed := counts.get(_FAILED):
                yield f"{name}: {who} saw {failed} x 500"
        for who in ("users", "replicas"):
            seconds = row[f"{who}_back_seconds"]
            if seconds is None or seconds > within:
                told = "not at all" if seconds is None else f"after {seconds} s"
                yield f"{name}: {who} were back {told}, {within:g} s may be"
        if "statuses" in row:
            yield from _of_overload(name, row)
        for manifest in row.get("not_refused", ()):
            yield f"{name}: not refused: {manifest}"


def _of_overload(name: str, row: Row) -> Iterator[str]:
    if not row["statuses"].get("429"):
        yield f"{name}: no 429, so it was no overload"
    if others := sorted(set(row["statuses"]) - {"200", "429"}):
        yield f"{name}: answers other than 200 and 429: {', '.join(others)}"
    if without := row["429_without_retry_after"]:
        yield f"{name}: {without} x 429 without Retry-After"


def _counted(answers: Mapping[str, int]) -> str:
    """`0` is what was not answered."""
    return ", ".join(
        f"{count} x {'none' if answer == '0' else answer}"
        for answer, count in sorted(answers.items())
    )
