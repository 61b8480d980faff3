"""What several rooms' tests share."""

import pytest

from tests.postgres import postgres


@pytest.fixture(scope="session")
def postgres_server():
    """One real PostgreSQL for the whole run; its `database()` is empty each time."""
    with postgres() as server:
        yield server
