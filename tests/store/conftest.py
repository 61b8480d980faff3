import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine

from edits.store import RevisionStore

START = datetime(2026, 1, 1, tzinfo=UTC)

# Marks a test that is about one of the two databases.
on_sqlite = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
on_postgresql = pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)


@pytest.fixture
def url(store_url):
    return store_url


@pytest.fixture
def clock():
    """A clock that moves one second each time it is read."""
    ticks = iter(range(10**6))
    return lambda: START + timedelta(seconds=next(ticks))


@pytest.fixture
def store(url, clock):
    with RevisionStore.open(url, clock=clock) as opened:
        yield opened


@pytest.fixture
def tamper(url, tmp_path):
    """Run SQL as an intruder would: past the library, with the triggers out of the way."""

    def on_file(statement, *parameters):
        connection = sqlite3.connect(tmp_path / "store.db")
        triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        for (name,) in connection.execute(triggers).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        changed = connection.execute(statement, parameters).rowcount
        connection.commit()
        connection.close()
        assert changed == 1

    def on_server(statement, *parameters):
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql("SET session_replication_role = replica")
            changed = connection.exec_driver_sql(
                statement.replace("?", "%s").replace("x'", r"'\x"), parameters
            ).rowcount
        engine.dispose()
        assert changed == 1

    return on_file if url.startswith("sqlite") else on_server
