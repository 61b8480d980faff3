"""The revision store from the command line: the fence, and sets that others have signed."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from edits.cli import app
from edits.errors import ContentMismatch, HeadMoved
from edits.manifests import RevisionContent, catalog_entry
from edits.manifests.signing import SigningKey, sign
from edits.manifests.statement import RevisionStatement
from edits.store import ReplicaReport, RevisionStore
from edits.store_commands import LAGGING

BY = {"author": "ana", "reason": "test"}
SETS = [RevisionContent(), RevisionContent((catalog_entry("remove-beer"),))]
OTHER = RevisionContent((catalog_entry("remove-pistol"),))


@pytest.fixture
def url(tmp_path):
    """A store with two revisions, the first one active."""
    address = f"sqlite:///{tmp_path / 'quickfix.db'}"
    with RevisionStore.open(address) as store:
        store.publish_and_activate(SETS[0], **BY)
        store.publish(SETS[1], **BY)
    return address


def report(url, active, **fields):
    with RevisionStore.open(url) as store:
        store.acknowledge(
            ReplicaReport("pod-1", "node", datetime.now(UTC), active_revision=active, **fields)
        )


def run(*words, code=0):
    result = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def test_activate_answers_when_every_replica_runs_it(url):
    report(url, 2)
    answer = run("activate", "2", "--store", url, "--wait", "5")
    assert (answer["revision"], answer["fence"]["closed"]) == (2, True)
    assert answer["fence"]["replicas"] == 1


@pytest.mark.parametrize(
    ("active", "fields", "reason"),
    [
        (1, {}, "runs revision 1"),
        (2, {"oldest_running": 1}, "a request still runs under revision 1"),
    ],
)
def test_activate_names_who_lags_and_ends_with_its_own_exit_code(url, active, fields, reason):
    report(url, active, **fields)
    started = time.monotonic()
    answer = run("activate", "2", "--store", url, "--wait", "0.3", code=LAGGING)
    assert 0.3 <= time.monotonic() - started < 5
    (laggard,) = answer["fence"]["laggards"]
    assert (laggard["id"], laggard["reason"]) == ("pod-1", reason)
    with RevisionStore.open(url) as store:
        assert store.head_number() == 2, "it is the head all the same"


def test_the_table_names_who_lags(url):
    report(url, 1)
    result = CliRunner().invoke(app, ["activate", "2", "--store", url, "--wait", "0"])
    assert result.exit_code == LAGGING
    assert "1 of 1 replicas lag" in result.output
    assert "pod-1" in result.output


def test_urgent_is_kept_with_the_head(url):
    run("activate", "2", "--store", url, "--urgent")
    with RevisionStore.open(url) as store:
        assert store.pointer().restart_below == 2
    run("rollback", "1", "--store", url, "--urgent")
    with RevisionStore.open(url) as store:
        assert store.pointer().restart_below == 3


def test_status_says_who_lives(url):
    report(url, 1)
    (replica,) = run("status", "--store", url)["replicas"]
    assert (replica["id"], replica["standing"], replica["active"]) == ("pod-1", "live", 1)


@pytest.fixture
def signed(tmp_path):
    """A set and its envelope as files."""
    moment = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    statement = RevisionStatement(4, SETS[1].digest(), moment)
    files = tmp_path / "revision.json", tmp_path / "revision.dsse.json"
    files[0].write_bytes(SETS[1].canonical_bytes())
    files[1].write_bytes(sign(statement, [SigningKey.generate()]))
    return files


def test_a_signed_set_is_published_with_its_envelope_and_its_expiry(url, signed):
    answer = run("publish", str(signed[0]), "--envelope", str(signed[1]), "--store", url)
    assert answer == {"revision": 3, "digest": SETS[1].digest()}
    with RevisionStore.open(url) as store:
        assert store.envelope(3) == signed[1].read_bytes()
        assert store.revision(3).expires_at > datetime.now(UTC)
        assert store.head_number() == 1
        assert store.envelope(2) is None
    again = run("publish", str(signed[0]), "--envelope", str(signed[1]), "--store", url)
    assert again["revision"] == 3


def test_an_envelope_of_another_set_is_refused_before_it_is_published(url, signed):
    signed[0].write_bytes(SETS[0].canonical_bytes())
    words = ["publish", str(signed[0]), "--envelope", str(signed[1]), "--store", url]
    assert isinstance(CliRunner().invoke(app, words).exception, ContentMismatch)
    with RevisionStore.open(url) as store:
        assert [record.number for record in store.revisions()] == [2, 1]


def test_a_revision_is_tried_by_a_canary_halted_and_made_the_head(url):
    report(url, 1)
    begun = run("activate", "2", "--store", url, "--canary", "0.5", "--soak", "60")["rollout"]
    assert (begun["revision"], begun["canaries"], begun["soak_seconds"]) == (2, ["pod-1"], 60)
    assert run("status", "--store", url)["rollout"]["revision"] == 2
    halted = run("rollout", "halt", "--store", url, "--reason", "looks wrong")["rollout"]
    assert (halted["outcome"], halted["detail"]) == ("halted", "looks wrong")
    assert run("status", "--store", url)["rollout"] is None
    run("activate", "2", "--store", url, "--canary", "0.5")
    run("activate", "2", "--store", url)
    ended = run("rollout", "status", "--store", url)["rollout"]
    assert (ended["outcome"], run("status", "--store", url)["head"]) == ("promoted", 2)


@pytest.mark.parametrize("also", [["--urgent"], ["--wait", "1"]])
def test_a_canary_is_not_urgent_and_not_waited_for(url, also):
    result = CliRunner().invoke(
        app, ["activate", "2", "--store", url, "--canary", "0.5", *also, "--json"]
    )
    assert result.exit_code == 2
    assert "--canary" in result.output


def test_a_soak_without_a_canary_goes_nowhere(url):
    result = CliRunner().invoke(app, ["activate", "2", "--store", url, "--soak", "60"])
    assert result.exit_code == 2
    assert "--soak" in result.output
    assert run("status", "--store", url)["head"] == 1


def head_of(url):
    return run("status", "--store", url)["head"]


def refused(*words):
    result = CliRunner().invoke(app, list(words))
    assert isinstance(result.exception, HeadMoved), result.output
    return result.exception


def test_a_revision_that_was_made_on_another_head_is_activated_by_force_only(url):
    """Revision 2 knows nothing of what revision 3 took out."""
    with RevisionStore.open(url) as store:
        store.publish_and_activate(OTHER, author="other", reason="a takedown meanwhile")
        made_on_3 = store.publish(RevisionContent(), author="test", reason="made on it").number
    words = ["activate", "2", "--store", url]
    assert (refused(*words).expected, refused(*words).actual) == (1, 3)
    assert "--force" in refused(*words).message
    assert refused(*words, "--canary", "0.5").actual == 3
    assert head_of(url) == 3
    assert run("activate", str(made_on_3), "--store", url)["revision"] == made_on_3


def test_of_two_revisions_made_on_one_head_the_second_does_not_undo_the_first(url):
    with RevisionStore.open(url) as store:
        second = store.publish(OTHER, author="test", reason="made on 1, too")
    run("activate", "2", "--store", url)
    refused("activate", str(second.number), "--store", url)
    assert head_of(url) == 2
    assert run("activate", str(second.number), "--force", "--store", url)["revision"] == 3


def test_a_roll_back_that_expects_a_head_is_refused_on_another(url):
    run("activate", "2", "--store", url)
    refused("rollback", "1", "--expected-head", "1", "--store", url)
    assert run("rollback", "1", "--expected-head", "2", "--store", url)["revision"] == 3


def test_what_commands_change_and_what_they_are_refused_is_in_the_audit_log(url):
    report(url, 1)
    run("activate", "2", "--canary", "0.5", "--author", "ann", "--store", url)
    run("rollout", "halt", "--reason", "wrong", "--author", "bob", "--store", url)
    run("activate", "2", "--store", url)
    run("rollback", "1", "--author", "ann", "--store", url)
    refused("rollback", "2", "--expected-head", "1", "--store", url)
    events = reversed(run("audit", "list", "--store", url)["events"])
    assert [(e["actor"], e["role"], e["action"], e["target"], e["outcome"]) for e in events] == [
        ("ann", "cli", "activate", "revision 2", "ok"),
        ("bob", "cli", "halt_rollout", "", "ok"),
        ("cli", "cli", "activate", "revision 2", "ok"),
        ("ann", "cli", "rollback", "revision 1", "ok"),
        ("cli", "cli", "rollback", "revision 2", "refused"),
    ]
    assert run("audit", "verify", "--store", url)["holds"] is True
