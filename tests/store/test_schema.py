"""The schema: made by the migrations, equal to the tables, append-only, portable."""

import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Timer

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from edits.store import AuditEvent, RevisionStore
from edits.store.database import Database
from edits.store.tables import head, metadata

from .conftest import on_postgresql, on_sqlite
from .contents import content


@pytest.fixture
def execute(store, url):
    """Run SQL past the library, on a store with one revision and one audit entry."""
    store.publish_and_activate(content("a"), author="ana", reason="test")
    store.record(AuditEvent("ana", "operator", "publish", "1", "ok"))
    engine = create_engine(url)

    def run(statement):
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)

    blob = "x'00'" if url.startswith("sqlite") else "'\\x00'"
    run(f"INSERT INTO envelopes VALUES (1, {blob})")
    run(f"INSERT INTO artefacts VALUES ('sha256:0', 'text/plain', {blob})")
    yield run
    engine.dispose()


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(store, url):
    engine = create_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


HISTORY = [
    "UPDATE revisions SET author = 'eve'",
    "DELETE FROM revisions",
    "UPDATE envelopes SET envelope = envelope",
    "DELETE FROM envelopes",
    "UPDATE artefacts SET content = content",
    "DELETE FROM artefacts",
    "UPDATE audit SET actor = 'eve'",
    "DELETE FROM audit",
    "UPDATE head SET number = NULL",
    "UPDATE head SET number = 0",
    "UPDATE head SET number = 1",
    "UPDATE head SET restart_below = -1",
    "DELETE FROM head",
    "INSERT INTO head VALUES (2, 1, 0)",
    "UPDATE audit_tip SET entry = 0",
    "DELETE FROM audit_tip",
]


@pytest.mark.parametrize("statement", HISTORY)
def test_the_database_itself_refuses_to_rewrite_history(execute, statement):
    with pytest.raises(IntegrityError, match=r"append-only|only moves forward"):
        execute(statement)


@on_sqlite
@pytest.mark.parametrize("table", ["revisions", "envelopes", "artefacts", "audit", "head"])
def test_sqlite_refuses_to_replace_a_row(execute, table):
    with pytest.raises(IntegrityError, match=r"append-only|only moves forward"):
        execute(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")


@on_postgresql
@pytest.mark.parametrize("table", ["revisions", "envelopes", "artefacts", "audit", "head"])
def test_postgresql_refuses_to_empty_a_table(execute, table):
    with pytest.raises(IntegrityError, match=r"append-only|only moves forward"):
        execute(f"TRUNCATE {table} CASCADE")


@on_postgresql
def test_postgresql_makes_a_commit_durable_where_the_servers_default_does_not(url):
    engine = create_engine(url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        name = engine.url.database
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET synchronous_commit = off")
    engine.dispose()
    with closing(Database(url)) as database, database.write() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"


@on_postgresql
def test_readers_of_postgresql_see_one_moment_and_cannot_write(store, url):
    with closing(Database(url)) as database, database.read() as connection:
        assert connection.scalar(select(head.c.number)) is None
        store.publish_and_activate(content("a"), author="ana", reason="test")
        assert connection.scalar(select(head.c.number)) is None
        with pytest.raises(DBAPIError, match="read-only transaction"):
            connection.execute(update(head).values(number=1))


@on_sqlite
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


def test_threads_of_one_process_may_open_new_stores_at_once(url, tmp_path):
    urls = [url, f"sqlite:///{tmp_path / 'second.db'}"]

    def open_store(number):
        with RevisionStore.open(urls[number % 2]) as store:
            return store.head()

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(open_store, range(8))) == [None] * 8


@on_sqlite
@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_opening_waits_while_another_process_has_the_new_file(url, tmp_path, lock):
    """SQLite's own busy timeout does not cover the switch of a new file to WAL."""
    holder = sqlite3.connect(tmp_path / "store.db", isolation_level=None, check_same_thread=False)
    holder.execute(lock)
    Timer(0.2, lambda: holder.execute("ROLLBACK")).start()
    with RevisionStore.open(url) as store:
        assert store.head() is None
    holder.close()


@on_sqlite
def test_a_store_that_is_up_to_date_opens_while_another_process_writes(store, url, tmp_path):
    writer = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with RevisionStore.open(url) as second:
        assert second.head() is None
    writer.execute("ROLLBACK")
    writer.close()
