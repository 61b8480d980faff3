"""The schema: made by the migrations, equal to the tables, append-only, portable."""

import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Timer

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from edits.store import AuditEvent, RevisionStore
from edits.store.database import Database
from edits.store.tables import metadata

from .contents import content


@pytest.fixture
def connection(store, tmp_path):
    """A connection past the library, on a store with one revision and one audit entry."""
    store.publish_and_activate(content("a"), author="ana", reason="test")
    store.record(AuditEvent("ana", "operator", "publish", "1", "ok"))
    with sqlite3.connect(tmp_path / "store.db") as opened:
        opened.execute("INSERT INTO signatures VALUES (1, 'key', x'00')")
        opened.execute("INSERT INTO artefacts VALUES ('sha256:0', 'text/plain', x'00')")
        yield opened


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(store, url):
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_every_table_compiles_for_postgresql():
    for table in metadata.sorted_tables:
        ddl = str(CreateTable(table).compile(dialect=postgresql.dialect()))
        assert f"CREATE TABLE {table.name}" in ddl


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE revisions SET author = 'eve'",
        "DELETE FROM revisions",
        "INSERT OR REPLACE INTO revisions SELECT * FROM revisions",
        "UPDATE signatures SET envelope = x'01'",
        "DELETE FROM signatures",
        "INSERT OR REPLACE INTO signatures SELECT * FROM signatures",
        "UPDATE artefacts SET content = x'01'",
        "DELETE FROM artefacts",
        "UPDATE audit SET actor = 'eve'",
        "DELETE FROM audit",
        "INSERT OR REPLACE INTO audit SELECT * FROM audit",
        "UPDATE head SET number = NULL",
        "UPDATE head SET number = 0",
        "UPDATE head SET number = 1",
        "DELETE FROM head",
        "INSERT OR REPLACE INTO head VALUES (1, 0)",
        "INSERT INTO head VALUES (2, 1)",
        "UPDATE audit_tip SET entry = 0",
        "DELETE FROM audit_tip",
    ],
)
def test_the_database_itself_refuses_to_rewrite_history(connection, statement):
    with pytest.raises(sqlite3.IntegrityError, match=r"append-only|only moves forward"):
        connection.execute(statement)


def test_every_connection_is_durable_and_checks_references(url):
    with closing(Database(url)) as database, database.read() as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    full = 2
    assert settings == {
        "journal_mode": "wal",
        "synchronous": full,
        "foreign_keys": 1,
        "busy_timeout": 15_000,
    }


def test_opening_leaves_the_logging_of_the_program_alone(url):
    """Alembic's usual setup replaces the root handlers and disables every other logger."""
    root, mine = logging.getLogger(), logging.getLogger("some.program")
    before = (list(root.handlers), root.level, mine.disabled, mine.level)
    RevisionStore.open(url).close()
    assert (list(root.handlers), root.level, mine.disabled, mine.level) == before
    assert logging.getLogger("alembic.runtime.migration").handlers == []


def test_threads_of_one_process_may_open_new_stores_at_once(tmp_path):
    def open_store(number):
        with RevisionStore.open(f"sqlite:///{tmp_path / f'{number % 2}.db'}") as store:
            return store.head()

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(open_store, range(8))) == [None] * 8


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_opening_waits_while_another_process_has_the_new_file(url, tmp_path, lock):
    """SQLite's own busy timeout does not cover the switch of a new file to WAL."""
    holder = sqlite3.connect(tmp_path / "store.db", isolation_level=None, check_same_thread=False)
    holder.execute(lock)
    Timer(0.2, lambda: holder.execute("ROLLBACK")).start()
    with RevisionStore.open(url) as store:
        assert store.head() is None
    holder.close()


def test_a_store_that_is_up_to_date_opens_while_another_process_writes(store, url, tmp_path):
    writer = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with RevisionStore.open(url) as second:
        assert second.head() is None
    writer.execute("ROLLBACK")
    writer.close()
