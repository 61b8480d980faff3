import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from edits.store import RevisionStore

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'store.db'}"


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
def tamper(tmp_path):
    """Run SQL on the file as an intruder would: past the library, with the triggers dropped."""

    def execute(statement, *parameters):
        connection = sqlite3.connect(tmp_path / "store.db")
        triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        for (name,) in connection.execute(triggers).fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        changed = connection.execute(statement, parameters).rowcount
        connection.commit()
        connection.close()
        assert changed == 1

    return execute
