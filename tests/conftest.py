"""What several rooms' tests share."""

import pytest
import torch

from tests.postgres import postgres

# Several threads on busy cores spend their time waiting for each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread():
    """What a test has set ends with it."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def postgres_server():
    """One real PostgreSQL for the whole run; its `database()` is empty each time."""
    with postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request, tmp_path):
    """The URL of a new store, on both databases in turn."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'store.db'}"
    else:
        with request.getfixturevalue("postgres_server").database() as database:
            yield database
