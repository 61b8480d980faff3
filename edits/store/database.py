"""Connections: one engine, read and write transactions, and database failures as StoreUnavailable.

SQLite runs in WAL mode with a full sync at each commit, so that what was acknowledged survives a
killed process and a power cut, and readers never wait for a writer.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, IntegrityError, TimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from edits.errors import StoreUnavailable

_DIALECTS = {"sqlite", "sqlite+pysqlite"}
_BUSY_SECONDS = 15
_BUSY_PAUSE_SECONDS = 0.01
_POOL_SIZE = 16


class Database:
    """The engine behind a store URL. Thread-safe: each transaction has its own connection."""

    def __init__(self, url: str) -> None:
        self._url = _supported(url)
        self._engine = create_engine(
            self._url,
            pool_size=_POOL_SIZE,
            max_overflow=0,
            pool_timeout=2 * _BUSY_SECONDS,
            hide_parameters=True,
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        self._writer = self._engine.execution_options(writes=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read transaction: one consistent view of the store."""
        with self._failures(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A write transaction, one at a time across all processes; rolled back on any error."""
        with self._failures(), self._writer.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # a rule of the schema was broken: a bug here, not a database that is away
        except (DatabaseError, TimeoutError) as error:
            # Only the driver's own words: SQLAlchemy's add the statement and its parameters.
            cause = error.orig if isinstance(error, DBAPIError) else "no connection became free"
            raise StoreUnavailable(
                f"the store {self._url.render_as_string(hide_password=True)} cannot be used: "
                f"{cause}; {_advice(cause)}"
            ) from error


def _supported(url: str) -> URL:
    """The parsed URL. Raises StoreUnavailable, never repeating what may hold a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreUnavailable(
            "the store URL cannot be read; write it as sqlite:///path/to/store.db"
        ) from None
    if parsed.drivername not in _DIALECTS:
        raise StoreUnavailable(
            f"stores of the kind {parsed.drivername!r} are not supported; "
            "use sqlite:///path/to/store.db"
        )
    name = parsed.database or ""
    if name in ("", ":memory:") or "\0" in name or parsed.query or parsed.host:
        raise StoreUnavailable(
            "the store URL must name a file and nothing else, because removed concepts must not "
            "come back after a restart; write it as sqlite:///path/to/store.db"
        )
    # A missing folder is a mistyped or unmounted path: to create it would start an empty log.
    folder = Path(name).parent
    if not folder.is_dir():
        raise StoreUnavailable(
            f"the store's folder {str(folder)!r} does not exist; create or mount it first"
        )
    return parsed


def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """Settings of a new SQLite connection."""
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


def _advice(cause: object) -> str:
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
