"""`quickfix migrate`: the schema by its owner, and a replica's user with no more than it needs."""

import json
from contextlib import closing
from datetime import UTC, datetime

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError
from typer.testing import CliRunner

from edits.cli import app
from edits.errors import StoreUnavailable
from edits.manifests import RevisionContent, catalog_entry
from edits.store import AuditEvent, ReplicaReport, RevisionStore

from ..postgres import postgres

NEWEST = "0003"
BY = {"author": "ana", "reason": "test"}


def run(*words, code=0):
    result = CliRunner().invoke(app, ["migrate", *words, "--json"], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else result.output


@pytest.fixture(scope="module")
def server():
    with postgres() as started:
        yield started


@pytest.fixture
def users(server):
    """URLs of an empty database: as the owner of its schema, and as a user without any rights."""
    with server.database() as url:
        database = make_url(url).database
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE ROLE quickfix_owner LOGIN; CREATE ROLE quickfix LOGIN;"
                "ALTER SCHEMA public OWNER TO quickfix_owner;"
                "GRANT USAGE ON SCHEMA public TO PUBLIC;"
                f"GRANT CONNECT ON DATABASE {database} TO quickfix, quickfix_owner"
            )
        yield tuple(url.replace("postgres:@", f"{u}:@") for u in ("quickfix_owner", "quickfix"))
        with engine.begin() as connection:
            for user in ("quickfix", "quickfix_owner"):
                connection.exec_driver_sql(f"REASSIGN OWNED BY {user} TO postgres")
                connection.exec_driver_sql(f"DROP OWNED BY {user}; DROP ROLE {user}")
        engine.dispose()


def test_it_makes_the_schema_and_says_which_and_does_so_again(tmp_path):
    url = f"sqlite:///{tmp_path / 'quickfix.db'}"
    assert run("--store", url) == {"schema": NEWEST, "granted_to": None}
    with RevisionStore.open(url) as store:
        store.publish_and_activate(RevisionContent(), **BY)
    assert run("--store", url) == {"schema": NEWEST, "granted_to": None}
    with RevisionStore.open(url) as store:
        assert store.head_number() == 1


def test_the_url_may_stand_in_a_file(tmp_path):
    file = tmp_path / "url"
    file.write_text(f"sqlite:///{tmp_path / 'quickfix.db'}\n", encoding="utf-8")
    assert run("--store-file", str(file))["schema"] == NEWEST
    assert (tmp_path / "quickfix.db").is_file()
    refused = run("--store-file", str(tmp_path / "other"), code=2)
    assert "Invalid value for '--store-file'" in refused


def test_sqlite_has_no_users(tmp_path):
    url = f"sqlite:///{tmp_path / 'quickfix.db'}"
    refused = CliRunner().invoke(app, ["migrate", "--store", url, "--grant", "quickfix"])
    assert isinstance(refused.exception, StoreUnavailable)
    assert "SQLite has no users" in str(refused.exception)


def test_a_replica_cannot_make_the_schema_and_works_after_the_owner_did(users):
    owner, replica = users
    with pytest.raises(StoreUnavailable, match="permission denied"):
        RevisionStore.open(replica)
    assert run("--store", owner, "--grant", "quickfix") == {
        "schema": NEWEST,
        "granted_to": "quickfix",
    }
    content = RevisionContent((catalog_entry("remove-beer"),))
    with RevisionStore.open(replica) as store:
        number = store.publish_and_activate(content, urgent=True, **BY).number
        store.rollback(number, **BY)
        store.acknowledge(ReplicaReport("pod-1", "node", datetime.now(UTC)))
        store.record(AuditEvent("ana", "operator", "publish", "1", "ok"))
        with closing(store.watch(lambda: None)):
            assert store.head_number() == number
        assert store.verify_audit().broken is None
        assert [r.id for r in store.replicas()] == ["pod-1"]
    assert run("--store", owner, "--grant", "quickfix")["schema"] == NEWEST


def test_a_second_user_takes_over_and_the_first_one_goes(users):
    """How the replicas' password is changed: a user of PostgreSQL has one at a time."""
    owner, first = users
    second = first.replace("quickfix:@", "quickfix_2:@")
    engine = create_engine(first.replace("quickfix:@", "postgres:@"), isolation_level="AUTOCOMMIT")
    run("--store", owner, "--grant", "quickfix")
    with engine.connect() as admin, RevisionStore.open(first) as before:
        before.publish_and_activate(RevisionContent(), **BY)
        admin.exec_driver_sql("CREATE USER quickfix_2")
        run("--store", owner, "--grant", "quickfix_2")
        with RevisionStore.open(second) as after:
            after.publish_and_activate(RevisionContent((catalog_entry("remove-beer"),)), **BY)
            assert before.head_number() == 2  # both work while replicas restart one by one
        before.close()
        admin.exec_driver_sql("DROP OWNED BY quickfix")
        admin.exec_driver_sql("DROP USER quickfix")
        with RevisionStore.open(second) as after:
            assert after.rollback(1, **BY).number == 3
        admin.exec_driver_sql("DROP OWNED BY quickfix_2")
        admin.exec_driver_sql("DROP USER quickfix_2")
        admin.exec_driver_sql("CREATE USER quickfix")  # which the fixture takes out
    engine.dispose()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE mine (a int)",
        "UPDATE alembic_version SET version_num = '0001'",
        "DELETE FROM audit",
        "DELETE FROM head",
        "TRUNCATE revisions",
        "DROP TABLE audit",
        "ALTER TABLE revisions DISABLE TRIGGER ALL",
    ],
)
def test_a_replica_can_do_no_more(users, statement):
    owner, replica = users
    run("--store", owner, "--grant", "quickfix")
    engine = create_engine(replica)
    refusal = pytest.raises(ProgrammingError, match=r"permission denied|must be owner")
    with refusal, engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_rights_that_the_database_only_warns_about_are_an_error(server):
    with server.database() as url:
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "CREATE ROLE guest LOGIN; CREATE ROLE quickfix LOGIN;"
                "GRANT USAGE, CREATE ON SCHEMA public TO guest"
            )
        guest = url.replace("postgres:@", "guest:@")
        refused = CliRunner().invoke(app, ["migrate", "--store", guest, "--grant", "quickfix"])
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP OWNED BY guest, quickfix; DROP ROLE guest, quickfix")
        engine.dispose()
    assert isinstance(refused.exception, StoreUnavailable)
    assert "'quickfix' may not use the schema public" in str(refused.exception)


def test_a_user_that_is_missing_is_named_with_what_to_do(users):
    refused = CliRunner().invoke(app, ["migrate", "--store", users[0], "--grant", 'no"body'])
    assert isinstance(refused.exception, StoreUnavailable)
    assert 'role "no"body" does not exist' in str(refused.exception)
    assert "create the user first" in str(refused.exception)
