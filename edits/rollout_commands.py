"""`quickfix rollout`: the revision that some replicas try out, and its end."""

from typing import Annotated

import typer

from edits.store import Rollout
from edits.store_option import DEFAULT_STORE, Author, Json, Store, open_existing, recorded
from edits.terminal import rows_table, show

__all__ = ["rollout", "show_rollout"]

rollout = typer.Typer(no_args_is_help=True, help="The revision on trial: look, or halt it.")

Reason = Annotated[str, typer.Option(help="Why; it stays with the rollout.")]


@rollout.command("status")
def rollout_status(store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """The rollout that is going on, or else the last one."""
    with open_existing(store) as log:
        show_rollout(log.rollouts.newest(), as_json)


@rollout.command()
def halt(
    store: Store = DEFAULT_STORE,
    reason: Reason = "",
    author: Author = "cli",
    as_json: Json = False,
) -> None:
    """Take the revision on trial back: its canaries run the head again."""
    with open_existing(store) as log:
        with recorded(log, "halt_rollout", "", author=author) as facts:
            halted = log.rollouts.halt(reason or "by hand")
            facts.update(revision=halted.revision, reason=halted.detail)
        show_rollout(halted, as_json)


def show_rollout(found: Rollout | None, as_json: bool) -> None:
    """Print a rollout; None: there never was one."""
    document = None if found is None else found.document()
    columns = ("revision", "base", "outcome", "detail")
    row = {name: (document or {}).get(name) for name in columns}
    row["canaries"] = ", ".join(found.canaries) if found else "none"
    show({"rollout": document}, as_json, rows_table("rollout", [row]))
