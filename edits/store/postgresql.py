"""PostgreSQL: one database for a fleet.

Writers of the log wait for each other at the head's row, writers of the audit chain at its tip;
replicas that report never wait for either. Reads see one snapshot.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, Dialect, Engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from edits.errors import StoreUnavailable
from edits.store.tables import metadata, replicas

__all__ = ["HEAD_CHANNEL", "PostgreSQL"]

HEAD_CHANNEL = "quickfix_head"  # a trigger notifies it: migration 0002

# A replica holds one connection to follow the head and one to listen; admin calls take the rest.
_POOL_SIZE = 4
_POOL_SECONDS = 15
_LISTEN_SECONDS = 1.0  # how long a listener takes at most to see that it is to stop
_SCHEMA_LOCK = 0x9F1C_F1E5  # any number that no other program on the database uses

# A server that vanished without a word must not hold a replica's only thread for minutes.
_CONNECT = {
    "connect_timeout": 3,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "application_name": "quickfix",
    "options": "-c statement_timeout=15s -c lock_timeout=15s "
    "-c idle_in_transaction_session_timeout=60s",
}

_ADVICE = {
    "25006": "the server is a read-only standby; name the primary",
    "3D000": "create the database first",
    "42501": "grant the user the rights that docs/operations.md lists",
    "42704": "create the user first",
}
# Over the server's own limit: only a server that does not answer at all gets here.
_ANSWER_SECONDS = 17.0


class _Answering(psycopg.Connection[Any]):
    """A connection whose server must answer in time.

    One that is frozen, or whose disk hangs, keeps its sockets open and its kernel acknowledges:
    no keepalive and no limit of the server's own ends the wait.
    """

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Raises OperationalError and closes when nothing came; with `timeout` as the driver."""
        if timeout is not None:
            return super().wait(gen, interval, timeout)
        deadline = time.monotonic() + _ANSWER_SECONDS
        try:
            return super().wait(gen, interval, _ANSWER_SECONDS)
        except psycopg.Error as error:
            if time.monotonic() < deadline:
                raise
            self.close()  # what it was doing is not known
            raise psycopg.OperationalError(
                f"the server has not answered for {_ANSWER_SECONDS:g} s"
            ) from error


class PostgreSQL:
    """What is particular to PostgreSQL."""

    drivers = ("postgresql+psycopg",)

    def __init__(self, url: URL) -> None:
        # Connection arguments replace those of the URL, and what it asks for is to stay.
        given = url.query.get("options", ())
        self._options = (_CONNECT["options"], *((given,) if isinstance(given, str) else given))

    @property
    def engine_options(self) -> dict[str, Any]:
        """Options of the engine."""
        return {
            "pool_size": _POOL_SIZE,
            "max_overflow": 0,
            "pool_timeout": _POOL_SECONDS,
            # After the server was restarted the pool's connections are dead: find out before use.
            "pool_pre_ping": True,
            "connect_args": {**_CONNECT, "options": " ".join(map(str, self._options))},
        }

    def check(self, url: URL) -> None:
        """Raise StoreUnavailable for a URL that names no database."""
        if not url.database:
            raise StoreUnavailable(
                "the store URL names no database; write it as "
                "postgresql+psycopg://user:password@host/database"
            )
        if any("password" in name for name in url.query):
            raise StoreUnavailable(
                "the store URL has a password among its options, where messages would show it; "
                "write it as postgresql+psycopg://user:password@host/database"
            )

    def engines(self, engine: Engine) -> tuple[Engine, Engine]:
        """The engine of read transactions and that of write transactions."""
        event.listen(engine, "do_connect", _connect)
        event.listen(engine, "connect", _configure)
        reader = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        return reader, engine.execution_options(isolation_level="READ COMMITTED")

    def lock_schema(self, connection: Connection) -> None:
        """Wait until no other process upgrades this database; held until the transaction ends."""
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})")

    def grant(self, connection: Connection, user: str) -> None:
        """Give `user` what a replica needs: no new tables, no change of the schema's version."""
        name = connection.dialect.identifier_preparer.quote_identifier(user)
        tables = ", ".join(table.name for table in metadata.sorted_tables)
        schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
        for rights in (
            f"USAGE ON SCHEMA {schema}",
            f"SELECT, INSERT, UPDATE ON {tables}",
            "SELECT ON alembic_version",
            f"DELETE ON {replicas.name}",
        ):
            connection.exec_driver_sql(f"GRANT {rights} TO {name}")
        # On a schema of somebody else GRANT only warns.
        enters = "SELECT has_schema_privilege(%s, current_schema(), 'USAGE')"
        if not connection.exec_driver_sql(enters, (user,)).scalar_one():
            raise StoreUnavailable(
                f"{user!r} may not use the schema {schema}, and this user may not allow it; "
                "run this as the owner of the database"
            )

    def changes(self, driver: psycopg.Connection[Any], stopped: threading.Event) -> Iterator[None]:
        """One item now and soon after each commit that moved the head, until `stopped`."""
        driver.autocommit = True
        driver.execute(f"LISTEN {HEAD_CHANNEL}")
        yield
        while not stopped.is_set():
            for _ in driver.notifies(timeout=_LISTEN_SECONDS, stop_after=1):
                yield

    def advice(self, cause: object) -> str:
        """What to do about an error of the driver."""
        # libpq gives no code for a connection that was refused, only the server's words.
        state, said = getattr(cause, "sqlstate", None) or "", str(cause)
        if state.startswith("28") or "authentication failed" in said:
            return "check the user and the password"
        if state in _ADVICE:
            return _ADVICE[state]
        if "does not exist" in said:
            return _ADVICE["3D000"]
        if state.startswith("53"):
            return "the server has no room for more: raise its limits"
        return "check that the server runs and can be reached"


def _connect(
    _dialect: Dialect, _entry: ConnectionPoolEntry, cargs: Any, cparams: dict[str, Any]
) -> psycopg.Connection[Any]:
    return _Answering.connect(*cargs, **cparams)


def _configure(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    """Settings of a new connection."""
    # What was acknowledged must survive a crash of the server, whatever the server's default is;
    # a stricter default (remote_write, remote_apply) stays.
    cursor = connection.cursor()
    try:
        cursor.execute("SHOW synchronous_commit")
        (setting,) = cursor.fetchone() or ("on",)
        if setting in ("off", "local"):
            cursor.execute("SET synchronous_commit = on")
        connection.commit()
    finally:
        cursor.close()
