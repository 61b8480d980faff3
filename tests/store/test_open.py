"""A store that cannot be opened or used says why, and never repeats a password."""

import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect

from edits import store as package
from edits.errors import StoreUnavailable
from edits.store import AuditEvent, ReplicaReport, RevisionStore
from edits.store.database import Database
from tests.postgres import postgres

from .conftest import on_postgresql, on_sqlite
from .contents import content

ROOT = Path(__file__).resolve().parents[2]


def refusal(url):
    with pytest.raises(StoreUnavailable) as refused:
        RevisionStore.open(url)
    return refused.value.message


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "the store URL cannot be read"),
        ("store.db", "the store URL cannot be read"),
        ("ana:secret@host/db", "the store URL cannot be read"),
        ("mysql://ana:secret@host/db", "stores of the kind 'mysql' are not supported"),
        ("postgresql://ana:secret@host/db", "stores of the kind 'postgresql' are not supported"),
        ("postgresql+psycopg://ana:secret@host", "names no database"),
        ("postgresql+psycopg://ana@host/db?password=secret", "a password among its options"),
        ("sqlite://", "must name a file and nothing else"),
        ("sqlite:///:memory:", "must name a file and nothing else"),
        ("sqlite:///store.db?password=secret", "must name a file and nothing else"),
        ("sqlite://ana:secret@host/store.db", "must name a file and nothing else"),
        ("sqlite:///sto\0re.db", "must name a file and nothing else"),
    ],
)
def test_a_url_that_names_no_store_file_is_refused_without_its_password(url, words):
    message = refusal(url)
    assert words in message
    assert "sqlite:///path/to/store.db" in message or "postgresql+psycopg://user" in message
    assert "secret" not in message


def test_a_missing_folder_is_not_created(tmp_path):
    """A mistyped or unmounted path must not become a store without edits."""
    message = refusal(f"sqlite:///{tmp_path}/gone/store.db")
    assert "does not exist; create or mount it first" in message
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    assert "unable to open database file; check that the file" in refusal(f"sqlite:///{tmp_path}")


def test_a_place_where_nothing_can_be_written_is_refused():
    assert "check that the file and its folder are writable" in refusal("sqlite:////proc/store.db")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("groceries\n" * 100)
    message = refusal(f"sqlite:///{file}")
    assert "file is not a database; the file is something else; name another file" in message
    assert file.read_text() == "groceries\n" * 100


def test_a_schema_of_a_later_version_is_refused(store, url, tamper):
    store.close()
    tamper("UPDATE alembic_version SET version_num = '9999'")
    assert "the store has the schema '9999', which this version does not know" in refusal(url)


@on_sqlite
def test_a_database_of_another_program_is_refused_and_left_alone(url, tmp_path):
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("CREATE TABLE audit (what TEXT)")
    assert "table audit already exists" in refusal(url)
    with sqlite3.connect(tmp_path / "store.db") as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        assert tables.fetchall() == [("audit",)]


@on_sqlite
def test_a_store_that_breaks_while_open_says_so(store, tmp_path):
    store.publish_and_activate(content("a"), author="ana", reason="test")
    store.close()
    for name in ("store.db-wal", "store.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "store.db").write_bytes(b"x" * 8192)
    with pytest.raises(StoreUnavailable, match="file is not a database"):
        store.head()


@on_postgresql
def test_a_database_that_is_not_there_is_named_without_its_password(url):
    message = refusal(url.replace("postgres:@", "postgres:secret@").replace("/store_", "/gone_"))
    assert "does not exist; create the database first" in message
    assert "secret" not in message


@on_postgresql
def test_a_database_of_another_program_is_left_alone(url):
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE audit (what TEXT)")
    assert '"audit" already exists' in refusal(url)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == ["audit"]
    engine.dispose()


@on_postgresql
def test_options_of_the_url_are_kept_beside_the_stores_own(url):
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA apart")
    given = f"{url}&options=-csearch_path%3Dapart"
    with RevisionStore.open(given) as store:
        store.publish_and_activate(content("a"), author="ana", reason="test")
    with closing(Database(given)) as database, database.read() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "15s"
        assert connection.exec_driver_sql("SELECT number FROM apart.head").scalar_one() == 1
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA apart CASCADE")
    engine.dispose()


@on_postgresql
def test_the_rights_that_the_operations_page_lists_are_enough(url):
    RevisionStore.open(url).close()  # the first start, by the schema's owner
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    rights = re.search(r"```sql\n(.*?)```", page, re.DOTALL)[1]
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP ROLE IF EXISTS quickfix")
        connection.exec_driver_sql("CREATE ROLE quickfix LOGIN")
        connection.exec_driver_sql(rights)
    with RevisionStore.open(url.replace("postgres:@", "quickfix:@")) as store:
        number = store.publish(content("a"), author="ana", reason="test").number
        store.activate(number, urgent=True)
        store.rollback(1, author="ana", reason="test")
        store.acknowledge(ReplicaReport("pod-1", "node", datetime.now(UTC)))
        store.record(AuditEvent("ana", "operator", "publish", "1", "ok"))
        with closing(store.watch(lambda: None)):
            assert store.head_number() == 1
        assert store.verify_audit().broken is None
        assert len(store.replicas()) == 1
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP OWNED BY quickfix; DROP ROLE quickfix")
    engine.dispose()


def test_a_server_that_stops_is_named_and_found_again_when_it_returns():
    with (
        postgres() as server,
        server.database() as url,
        RevisionStore.open(url) as store,
    ):
        store.publish_and_activate(content("a"), author="ana", reason="test")
        server.stop()
        with pytest.raises(StoreUnavailable, match="check that the server runs"):
            store.head()
        server.start()
        assert store.head_number() == 1  # the pool's dead connections are found out before use


def test_the_public_names_are_the_ones_listed():
    assert list(package.__all__) == sorted(package.__all__, key=lambda it: (not it.isupper(), it))
    assert all(hasattr(package, name) for name in package.__all__)
