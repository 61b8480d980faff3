"""Which store a command works on, how it is opened, and how it records what it changes there."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from edits.errors import QuickFixError, StoreUnavailable
from edits.store import AuditEvent, RevisionStore

__all__ = ["DEFAULT_STORE", "Author", "Json", "Store", "open_existing", "open_store", "recorded"]

DEFAULT_STORE = "sqlite:///.quickfix/quickfix.db"

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Store = Annotated[str, typer.Option(help="URL of the revision store.")]
Author = Annotated[str, typer.Option(help="Who answers for the change.")]


def open_store(url: str) -> RevisionStore:
    """The store at `url`, new or not."""
    if url == DEFAULT_STORE:  # a folder that was named by hand must exist: a typo makes no new log
        Path(".quickfix").mkdir(mode=0o700, exist_ok=True)
    return RevisionStore.open(url)


def open_existing(url: str) -> RevisionStore:
    """The store at `url`. Raises StoreUnavailable where opening it would make a new, empty one.

    A mistyped name must not prove that an empty log holds.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return RevisionStore.open(url)  # says what is wrong with it
    file = Path(parsed.database or "")
    if parsed.get_backend_name() == "sqlite" and not file.is_file():
        raise StoreUnavailable(
            f"there is no store {str(file)!r}; name the store that is to be read"
        )
    return RevisionStore.open(url)


@contextmanager
def recorded(
    log: RevisionStore, action: str, target: str, *, author: str
) -> Iterator[dict[str, object]]:
    """Write to the audit log how the change inside ended, with the facts that it adds.

    Raises StoreUnavailable when a change that was made cannot be recorded.
    """
    facts: dict[str, object] = {}

    def record(outcome: str) -> None:
        log.record(AuditEvent(author, "cli", action, target, outcome, json.dumps(facts)))

    try:
        yield facts
    except StoreUnavailable:
        raise
    except QuickFixError:
        record("refused")
        raise
    try:
        record("ok")
    except StoreUnavailable as error:
        raise StoreUnavailable(
            f"{action} of {target} is done, and is not in the audit log: {error.message}"
        ) from error
