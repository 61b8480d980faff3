"""`quickfix audit`: the record of who did what, and the proof that nobody changed it."""

from typing import Annotated

import typer

from edits.errors import QuickFixError
from edits.store import Anchor
from edits.store_option import DEFAULT_STORE, Json, Store, open_existing
from edits.terminal import rows_table, show

__all__ = ["audit"]

audit = typer.Typer(no_args_is_help=True, help="The audit log: list it, or prove it.")


@audit.command("list")
def list_entries(
    store: Store = DEFAULT_STORE,
    limit: Annotated[int, typer.Option(min=1, help="So many entries at most.")] = 50,
    before: Annotated[int | None, typer.Option(min=1, help="Only entries before this one.")] = None,
    as_json: Json = False,
) -> None:
    """Who did what, when, with what result; newest first."""
    with open_existing(store) as log:
        entries = [entry.document() for entry in log.audit(limit, before)]
    columns = ("id", "at", "actor", "role", "action", "target", "outcome")
    rows = [{name: entry[name] for name in columns} for entry in entries]
    empty = dict.fromkeys(columns, "")
    show({"events": entries}, as_json, rows_table("audit log", rows or [empty]))


@audit.command()
def verify(
    store: Store = DEFAULT_STORE,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID:HASH",
            help="An entry and its hash that were noted elsewhere, as `last` of an earlier run.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Prove that the audit log is as it was recorded; exit code 1 and the first entry if not."""
    try:
        anchors = [Anchor.parse(text) for text in expect or ()]
    except ValueError as error:
        raise QuickFixError(str(error), param="expect") from None
    with open_existing(store) as log:
        verdict = log.verify_audit(anchors)
    broken = verdict.broken
    row: dict[str, object] = {"holds": broken is None, "entries": verdict.last.entry}
    if broken is not None:
        row = {"first broken entry": broken.entry, "kind": broken.kind, "reason": broken.reason}
    show(verdict.document(), as_json, rows_table("audit log", [row]))
    if broken is not None:
        raise typer.Exit(1)
    if not as_json and verdict.last.entry:
        typer.echo(f"last entry: {verdict.last}")  # outside the table, which would cut the hash
