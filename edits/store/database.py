"""Connections: one engine, read and write transactions, and database failures as StoreUnavailable.

What differs between the two databases is in `sqlite` and `postgresql`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, TimeoutError

from edits.errors import StoreUnavailable
from edits.store.postgresql import PostgreSQL
from edits.store.sqlite import SQLite

_FORMS = "sqlite:///path/to/store.db or postgresql+psycopg://user:password@host/database"


class Database:
    """The engine behind a store URL. Thread-safe: each transaction has its own connection."""

    def __init__(self, url: str) -> None:
        self.url, self.kind = _supported(url)
        self._engine = create_engine(self.url, hide_parameters=True, **self.kind.engine_options)
        self._reader, self._writer = self.kind.engines(self._engine)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A read transaction: one consistent view of the store."""
        with self._failures(), self._reader.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A write transaction, rolled back on any error.

        On SQLite one at a time across all processes. On PostgreSQL writers wait at the rows that
        they lock: every writer of the log locks the head first, every writer of the chain its tip.
        """
        with self._failures(), self._writer.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def session(self) -> Iterator[Any]:
        """A connection of the driver, in no transaction and in no pool, for a watch."""
        with self._failures(), self._engine.connect() as connection:
            driver = connection.connection.driver_connection
            # A pooled one would hold its place for the program's whole life.
            connection.detach()
            yield driver

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # a rule of the schema was broken: a bug here, not a database that is away
        except (DBAPIError, TimeoutError, sqlite3.Error, psycopg.Error) as error:
            # Only the driver's own words: SQLAlchemy's add the statement and its parameters.
            cause: object = error.orig if isinstance(error, DBAPIError) else error
            if isinstance(error, TimeoutError):
                cause = "no connection became free"
            said = " ".join(str(cause).split()).rstrip(".")
            raise StoreUnavailable(
                f"the store {self.url.render_as_string(hide_password=True)} cannot be used: "
                f"{said}; {self.kind.advice(cause)}"
            ) from error


def _supported(url: str) -> tuple[URL, SQLite | PostgreSQL]:
    """The parsed URL. Raises StoreUnavailable, never repeating what may hold a password."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise StoreUnavailable(f"the store URL cannot be read; write it as {_FORMS}") from None
    kind: SQLite | PostgreSQL
    if parsed.drivername in SQLite.drivers:
        kind = SQLite()
    elif parsed.drivername in PostgreSQL.drivers:
        kind = PostgreSQL(parsed)
    else:
        raise StoreUnavailable(
            f"stores of the kind {parsed.drivername!r} are not supported; use {_FORMS}"
        )
    kind.check(parsed)
    return parsed, kind
