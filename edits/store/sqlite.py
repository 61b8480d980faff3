"""SQLite: one file for one machine, in WAL mode.

A full sync at each commit, so that what was acknowledged survives a killed process and a power
cut; readers never wait for a writer.
"""

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.pool import ConnectionPoolEntry

from edits.errors import StoreUnavailable

__all__ = ["SQLite"]

_BUSY_SECONDS = 15
_BUSY_PAUSE_SECONDS = 0.01
_POOL_SIZE = 16
_LOOK_SECONDS = 0.1  # between two looks at the file: one pragma, no query


class SQLite:
    """What is particular to SQLite."""

    drivers = ("sqlite", "sqlite+pysqlite")

    @property
    def engine_options(self) -> dict[str, Any]:
        """Options of the engine."""
        return {"pool_size": _POOL_SIZE, "max_overflow": 0, "pool_timeout": 2 * _BUSY_SECONDS}

    def check(self, url: URL) -> None:
        """Raise StoreUnavailable for a URL that names no file, or a file in no folder."""
        name = url.database or ""
        if name in ("", ":memory:") or "\0" in name or url.query or url.host:
            raise StoreUnavailable(
                "the store URL must name a file and nothing else, because removed concepts must "
                "not come back after a restart; write it as sqlite:///path/to/store.db"
            )
        # A missing folder is a mistyped or unmounted path: to create it would start an empty log.
        folder = Path(name).parent
        if not folder.is_dir():
            raise StoreUnavailable(
                f"the store's folder {str(folder)!r} does not exist; create or mount it first"
            )

    def engines(self, engine: Engine) -> tuple[Engine, Engine]:
        """The engine of read transactions and that of write transactions."""
        event.listen(engine, "connect", _configure)
        event.listen(engine, "begin", _begin)
        return engine, engine.execution_options(writes=True)

    def lock_schema(self, connection: Connection) -> None:
        """Nothing: a write transaction has the whole file already."""

    def grant(self, _connection: Connection, user: str) -> None:
        """Raise StoreUnavailable: who may write the file may write the store."""
        raise StoreUnavailable(
            f"SQLite has no users, so {user!r} cannot be given rights; leave the user out"
        )

    def changes(self, driver: sqlite3.Connection, stopped: threading.Event) -> Iterator[None]:
        """One item now and soon after each commit of another connection, until `stopped`."""
        seen = None
        while True:
            # Changes when another connection commits; it reads shared memory only.
            (version,) = driver.execute("PRAGMA data_version").fetchone()
            if version != seen:
                yield
            seen = version
            if stopped.wait(_LOOK_SECONDS):
                return

    def advice(self, cause: object) -> str:
        """What to do about an error of the driver."""
        name = getattr(cause, "sqlite_errorname", "") if isinstance(cause, sqlite3.Error) else ""
        if name.startswith("SQLITE_NOTADB"):
            return "the file is something else; name another file"
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM")):
            return "check that the file and its folder are writable"
        if name.startswith("SQLITE_CORRUPT"):
            return "restore the file from a backup"
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return "another process holds it; try again"
        return "check the disk and the file"


def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """Settings of a new connection."""
    # The driver's own BEGIN comes late and is never IMMEDIATE; `_begin` sends ours.
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
        _use_wal(cursor)
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
    finally:
        cursor.close()


def _use_wal(cursor: DBAPICursor) -> None:
    # Of several processes that convert one new file, SQLite refuses some at once: it does not wait
    # out the busy timeout for this lock, so we do.
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_PAUSE_SECONDS)
        else:
            return


def _begin(connection: Connection) -> None:
    # A deferred transaction that reads and then writes fails when another process wrote between;
    # an immediate one waits for its turn before it reads.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
