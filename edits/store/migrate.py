"""Bring a database to the schema of this version: Alembic, run by the program on open."""

from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from edits.errors import StoreUnavailable
from edits.store.database import Database

_alembic_is_global = Lock()  # Alembic binds its `op` and `context` modules to one run at a time


def migrate(database: Database) -> None:
    """Create or upgrade the schema. Safe when several processes and threads do it at once.

    Raises StoreUnavailable, also for a database that a newer version has written.
    """
    # No file and no logging section: Alembic leaves the program's logging alone.
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    wanted = ScriptDirectory.from_config(config).get_current_head()

    # An upgraded store opens without the write lock, even while another process is writing.
    with database.read() as connection:
        if schema_version(connection) == wanted:
            return
    with _alembic_is_global, database.write() as connection:
        # Whoever comes second finds the work done: Alembic reads the version inside the lock.
        database.kind.lock_schema(connection)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise StoreUnavailable(
                f"the store has the schema {schema_version(connection)!r}, which this version "
                "does not know; run the version that wrote it, or a later one"
            ) from error


def schema_version(connection: Connection) -> str | None:
    """The schema that the database has; None before the first."""
    return MigrationContext.configure(connection).get_current_revision()
