"""A replica with trusted keys: what is not signed, changed, old or expired does not run."""

import json
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from edits.manifests import RevisionContent, parse_manifest
from edits.manifests.signing import SigningKey, sign
from edits.manifests.statement import RevisionStatement
from edits.store import RevisionStore, SignedBy

from .pictures import pixels
from .replica import manifest

ALICE, BOB, MALLORY = (SigningKey.generate() for _ in range(3))
SOON = timedelta(days=30)


def keys_file(path, *, threshold=2, **keys):
    entries = [{"name": name, "public": key.public} for name, key in keys.items()]
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"threshold": threshold, "keys": entries}), encoding="utf-8")
    fresh.replace(path)
    return path


@pytest.fixture
def keys(tmp_path):
    return keys_file(tmp_path / "trusted.yaml", alice=ALICE, bob=BOB)


@pytest.fixture
def trusting(settings, keys):
    return settings.model_copy(update={"trusted_keys": keys})


@pytest.fixture
def replica(trusting, start_replica):
    return start_replica(trusting)


def content(replica, *manifests):
    edits = tuple(parse_manifest(each) for each in manifests)
    fingerprint = replica.runtime.builder.fingerprint if edits else ""
    return RevisionContent(edits, fingerprint=fingerprint)


def envelope(content, sequence, *signers, expires=SOON):
    moment = (datetime.now(UTC) + expires).replace(microsecond=0)
    return sign(RevisionStatement(sequence, content.digest(), moment), signers or (ALICE, BOB))


def publish(replica, content, signatures, **query):
    body = {
        "revision": json.loads(content.canonical_bytes()),
        "envelope": json.loads(signatures),
    }
    return replica.client.post(
        "/admin/revisions", params=query, json=body, headers=replica.operator
    )


def publish_one(replica, sequence=1, **spec):
    wanted = content(replica, manifest(**spec))
    answer = publish(replica, wanted, envelope(wanted, sequence))
    assert answer.status_code == 201, answer.text
    return wanted


def error_of(answer):
    return answer.json()["error"]["type"]


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_without_a_signed_set_a_replica_is_not_ready(replica):
    assert not replica.runtime.ready
    assert replica.draw().status_code == 503
    assert replica.runtime.store.head() is None


def test_a_signed_set_is_published_runs_and_is_shown(replica):
    publish_one(replica, sequence=5)
    assert replica.runtime.ready
    assert replica.draw().headers["X-QuickFix-Revision"] == "1"
    trust = replica.read("status")["trust"]
    assert (trust["threshold"], trust["keys"]) == (2, ["alice", "bob"])
    assert (trust["set"]["sequence"], trust["set"]["signers"]) == (5, ["alice", "bob"])
    (record,) = replica.read("revisions")["revisions"]
    assert record["expires_at"].startswith(trust["set"]["expires"][:-1])


@pytest.mark.parametrize("call", ["publish", "remove", "roll_back"])
def test_writes_that_nobody_signed_are_refused(replica, call):
    publish_one(replica)
    arguments = {"publish": manifest("other"), "remove": "remove-pistol", "roll_back": 1}
    answer = getattr(replica, call)(arguments[call])
    assert (answer.status_code, error_of(answer)) == (409, "signatures_required")
    assert replica.runtime.store.head_number() == 1


def test_a_signed_set_without_trusted_keys_is_refused(settings, start_replica):
    plain = start_replica(settings)
    wanted = content(plain, manifest())
    answer = publish(plain, wanted, envelope(wanted, 1))
    assert (answer.status_code, error_of(answer)) == (409, "signatures_required")


def attacks(replica):
    """Name, set, envelope, and how the service calls it; sequence 5 with one edit runs."""
    one = content(replica, manifest())
    two = content(replica, manifest(), manifest("remove-cat", concept="cat"))
    other = content(replica, manifest(concept="knife"))
    none = content(replica)
    ridge = content(replica, manifest(method={"ridge": 1e9}))
    return {
        "replay of an older set": (other, envelope(other, 4), 409, "replay_refused"),
        "another set of the same sequence": (two, envelope(two, 5), 409, "replay_refused"),
        "signatures of another set": (two, envelope(one, 6), 422, "content_mismatch"),
        "an edit taken away": (none, envelope(two, 6), 422, "content_mismatch"),
        "an edit added": (two, envelope(one, 6), 422, "content_mismatch"),
        "a setting changed": (ridge, envelope(one, 6), 422, "content_mismatch"),
        "one signature of two": (two, envelope(two, 6, ALICE), 422, "signature_invalid"),
        "an unknown key": (two, envelope(two, 6, ALICE, MALLORY), 422, "signature_invalid"),
        "expired": (two, envelope(two, 6, expires=-SOON), 422, "statement_expired"),
        "not an envelope": (two, b'{"payload": 7}', 422, "envelope_invalid"),
    }


ATTACKS = (
    "replay of an older set",
    "another set of the same sequence",
    "signatures of another set",
    "an edit taken away",
    "an edit added",
    "a setting changed",
    "one signature of two",
    "an unknown key",
    "expired",
    "not an envelope",
)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_over_the_wire_is_refused_and_changes_nothing(replica, attack):
    publish_one(replica, sequence=5)
    before = pixels(replica.draw())
    assert set(attacks(replica)) == set(ATTACKS)
    wanted, signatures, status, kind = attacks(replica)[attack]
    answer = publish(replica, wanted, signatures)
    assert (answer.status_code, error_of(answer)) == (status, kind), answer.text
    assert [record.number for record in replica.runtime.store.revisions()] == [1]
    assert np.array_equal(pixels(replica.draw()), before)
    assert replica.runtime.activator.active.revision == 1


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name != "not an envelope"])
def test_an_attacker_who_writes_the_store_changes_nothing_that_runs(replica, attack):
    running = publish_one(replica, sequence=5)
    wanted, signatures, _, kind = attacks(replica)[attack]
    with RevisionStore.open(replica.runtime.settings.store_url) as store:
        number = store.publish_and_activate(
            wanted,
            author="eve",
            reason="",
            signed=SignedBy(signatures, datetime.now(UTC) + SOON),
        ).number
    wait_until(lambda: replica.runtime.activator.state.wanted == number)
    state = replica.runtime.activator.state
    wait_until(lambda: replica.runtime.activator.state.last_error is not None)
    state = replica.runtime.activator.state
    assert state.last_error.startswith(kind), state.last_error
    assert state.rejected_digest == wanted.digest()
    assert state.active.digest == running.digest()
    assert replica.draw().headers["X-QuickFix-Revision"] == "1"


def test_an_unsigned_revision_in_the_store_does_not_run(replica):
    publish_one(replica)
    store = replica.runtime.store
    store.publish_and_activate(content(replica), author="eve", reason="everything back")
    wait_until(lambda: replica.runtime.activator.state.last_error is not None)
    assert "is not signed" in replica.runtime.activator.state.last_error
    assert replica.draw().headers["X-QuickFix-Revision"] == "1"


def test_after_a_restart_nothing_older_runs(replica, trusting, start_replica):
    old = publish_one(replica, sequence=1)
    old_envelope = replica.runtime.store.envelope(1)
    publish_one(replica, sequence=2, concept="knife")
    replica.runtime.stop()
    with RevisionStore.open(trusting.store_url) as store:
        moment = datetime.now(UTC) + SOON
        store.publish_and_activate(
            old, author="eve", reason="", signed=SignedBy(old_envelope, moment)
        )
    again = start_replica(trusting)
    assert not again.runtime.ready
    assert again.runtime.activator.state.last_error.startswith("replay_refused")


def test_going_back_is_a_new_signature_and_a_new_revision(replica):
    first = publish_one(replica, sequence=1)
    publish_one(replica, sequence=2, concept="knife")
    back = publish(replica, first, envelope(first, 3))
    assert (back.status_code, back.json()["revision"]) == (201, 3)
    assert back.json()["digest"] == first.digest()
    assert replica.draw().headers["X-QuickFix-Revision"] == "3"


def test_the_same_set_and_signatures_are_one_revision_and_a_renewal_is_another(replica):
    wanted = content(replica, manifest())
    signatures = envelope(wanted, 1)
    numbers = [
        publish(replica, wanted, given).json()["revision"]
        for given in (signatures, signatures, envelope(wanted, 2))
    ]
    assert numbers == [1, 1, 2]


def test_a_set_that_expires_while_it_runs_runs_on_says_so_and_does_not_start_again(
    replica, trusting, start_replica
):
    wanted = content(replica, manifest())
    moment = (datetime.now(UTC) + timedelta(seconds=3)).replace(microsecond=0)
    signatures = sign(RevisionStatement(1, wanted.digest(), moment), (ALICE, BOB))
    assert publish(replica, wanted, signatures).status_code == 201
    wait_until(lambda: replica.runtime.activator.state.last_error is not None)
    assert replica.runtime.activator.state.last_error.startswith("statement_expired")
    assert replica.draw().headers["X-QuickFix-Revision"] == "1"
    replica.runtime.stop()
    assert not start_replica(trusting).runtime.ready


def test_what_has_expired_is_said_once_and_does_not_come_and_go(replica, caplog):
    wanted = content(replica, manifest())
    moment = (datetime.now(UTC) + timedelta(seconds=3)).replace(microsecond=0)
    signatures = sign(RevisionStatement(1, wanted.digest(), moment), (ALICE, BOB))
    assert publish(replica, wanted, signatures).status_code == 201
    activator = replica.runtime.activator
    wait_until(lambda: activator.state.last_error is not None)
    seen = set()
    until = time.monotonic() + 1.0  # twenty ticks
    while time.monotonic() < until:
        seen.add(activator.state.last_error)
    assert len(seen) == 1
    logged = [each for each in caplog.messages if "statement_expired" in each]
    assert len(logged) == 1


def test_an_older_set_does_not_replace_the_head_through_a_replica_that_is_behind(
    replica, trusting, start_replica, tmp_path, monkeypatch
):
    """Its own ledger would let the set pass; the head that others follow does not."""
    update = {"store": trusting.store_url, "state_dir": tmp_path / "two", "replica": "two"}
    behind = start_replica(trusting.model_copy(update=update))
    monkeypatch.setattr(behind.runtime.reconciler, "tick", lambda: None)
    publish_one(replica, sequence=7)
    older = content(replica, manifest(concept="knife"))
    answer = publish(behind, older, envelope(older, 6))
    assert (answer.status_code, error_of(answer)) == (409, "replay_refused")
    assert replica.runtime.store.head_number() == 1


@pytest.mark.parametrize("ended", ["set", "key"])
def test_an_older_set_does_not_replace_a_head_that_has_expired(
    replica, trusting, start_replica, tmp_path, monkeypatch, keys, ended
):
    """Its signatures count no more, and it is the later set all the same."""
    last = content(replica, manifest(concept="cat"))
    expires = timedelta(seconds=2) if ended == "set" else SOON
    assert publish(replica, last, envelope(last, 9, expires=expires)).status_code == 201
    update = {"store": trusting.store_url, "state_dir": tmp_path / "two", "replica": "two"}
    behind = start_replica(trusting.model_copy(update=update))
    monkeypatch.setattr(behind.runtime.reconciler, "tick", lambda: None)
    signers = (ALICE, BOB)
    if ended == "key":
        gone = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        keys_file(keys, alice=ALICE, bob=BOB, mallory=MALLORY)
        document = json.loads(keys.read_text(encoding="utf-8"))
        document["keys"][1]["not_after"] = gone
        keys.write_text(json.dumps(document), encoding="utf-8")
        signers = (ALICE, MALLORY)
    else:
        time.sleep(2.1)
    older = content(replica, manifest(concept="knife"))
    answer = publish(behind, older, envelope(older, 5, *signers))
    assert (answer.status_code, error_of(answer)) == (409, "replay_refused")
    assert replica.runtime.store.head_number() == 1


@pytest.mark.parametrize("part", ["revision", "envelope"])
def test_half_a_character_in_a_signed_set_is_refused(replica, part):
    body = {"revision": {"edits": []}, "envelope": {}, part: {"text": "\ud800"}}
    answer = replica.client.post(
        "/admin/revisions", content=json.dumps(body), headers=replica.operator
    )
    assert (answer.status_code, error_of(answer)) == (400, "invalid_request")
    assert "half a character" in answer.json()["error"]["message"]


def test_a_head_that_nobody_signed_does_not_keep_a_signed_set_away(replica):
    publish_one(replica, sequence=1)
    replica.runtime.store.publish_and_activate(content(replica), author="eve", reason="")
    publish_one(replica, sequence=2, concept="knife")
    assert replica.draw().headers["X-QuickFix-Revision"] == "3"


def test_keys_are_rotated_without_a_restart(replica, keys):
    wanted = publish_one(replica, sequence=1)
    keys_file(keys, alice=ALICE, carol=MALLORY)  # bob's key is taken out
    wait_until(lambda: replica.runtime.activator.state.last_error is not None)
    assert replica.runtime.activator.state.last_error.startswith("signature_invalid")
    assert replica.draw().status_code == 200, "what runs is not dropped"
    answer = publish(replica, wanted, envelope(wanted, 2, ALICE, MALLORY))
    assert answer.status_code == 201, answer.text
    wait_until(lambda: replica.runtime.activator.state.last_error is None)


def test_a_keys_file_that_turns_bad_leaves_the_last_good_keys(replica, keys):
    publish_one(replica, sequence=1)
    keys.write_text("threshold: 0", encoding="utf-8")
    publish_one(replica, sequence=2, concept="knife")
    assert replica.read("status")["trust"]["last_error"] is not None


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "edits"
    path.mkdir()
    return path


def write_set(folder, content, signatures):
    (folder / "revision.json").write_bytes(content.canonical_bytes())
    (folder / "revision.dsse.json").write_bytes(signatures)


def test_replicas_that_see_one_signed_directory_publish_one_revision(
    trusting, folder, tmp_path, start_replica
):
    update = {"edits_dir": folder, "store": f"sqlite:///{tmp_path / 'fleet.db'}"}
    one, two = (
        start_replica(
            trusting.model_copy(update={**update, "replica": name, "state_dir": tmp_path / name})
        )
        for name in ("one", "two")
    )
    assert not one.runtime.ready
    assert "has no revision.json" in one.runtime.directory.status.last_error
    wanted = content(one, manifest())
    write_set(folder, wanted, envelope(wanted, 1))
    wait_until(lambda: one.runtime.ready and two.runtime.ready)
    changed = content(one, manifest(version=2, concept="knife"))
    write_set(folder, changed, envelope(changed, 2))
    wait_until(lambda: two.runtime.activator.active.digest == changed.digest())
    wait_until(lambda: one.runtime.activator.active.digest == changed.digest())
    assert [record.number for record in one.runtime.store.revisions()] == [2, 1]


def test_a_replica_whose_volume_is_behind_does_not_publish_over_the_newer_set(
    trusting, folder, tmp_path, start_replica
):
    store = f"sqlite:///{tmp_path / 'fleet.db'}"
    one = start_replica(trusting.model_copy(update={"edits_dir": folder, "store": store}))
    newer = content(one, manifest(concept="knife"))
    write_set(folder, newer, envelope(newer, 2))
    wait_until(lambda: one.runtime.ready)
    behind = tmp_path / "behind"
    behind.mkdir()
    older = content(one, manifest())
    write_set(behind, older, envelope(older, 1))
    update = {"edits_dir": behind, "store": store, "replica": "two", "state_dir": tmp_path / "2"}
    two = start_replica(trusting.model_copy(update=update))  # with an empty ledger
    assert two.runtime.directory.status.last_error.startswith("replay_refused")
    assert two.runtime.activator.active.digest == newer.digest()
    assert [record.number for record in one.runtime.store.revisions()] == [1]


@pytest.mark.parametrize("fault", ["manifest beside it", "edit added", "one signature", "old"])
def test_a_directory_that_is_not_what_was_signed_leaves_the_last_good_set(
    trusting, folder, start_replica, fault
):
    replica = start_replica(trusting.model_copy(update={"edits_dir": folder}))
    wanted = content(replica, manifest())
    write_set(folder, wanted, envelope(wanted, 5))
    wait_until(lambda: replica.runtime.ready)
    other = content(replica, manifest(), manifest("remove-cat", concept="cat"))
    if fault == "manifest beside it":
        (folder / "more.json").write_text(json.dumps(manifest("more")), encoding="utf-8")
    elif fault == "edit added":
        write_set(folder, other, envelope(wanted, 6))
    elif fault == "one signature":
        write_set(folder, other, envelope(other, 6, ALICE))
    else:
        write_set(folder, other, envelope(other, 4))
    wait_until(lambda: replica.runtime.directory.status.last_error is not None)
    assert [record.number for record in replica.runtime.store.revisions()] == [1]
    assert replica.draw().headers["X-QuickFix-Revision"] == "1"
    assert replica.read("status")["directory"]["last_error"] is not None


def test_a_canary_of_a_signed_set_can_go_back_until_the_set_is_the_head(
    trusting, start_replica, tmp_path
):
    store = f"sqlite:///{tmp_path / 'fleet.db'}"
    fleet = {
        name: start_replica(
            trusting.model_copy(
                update={"store": store, "state_dir": tmp_path / name, "replica": name}
            )
        )
        for name in ("one", "two")
    }
    one = fleet["one"]
    publish_one(one, sequence=1)
    wait_until(lambda: all(r.runtime.ready for r in fleet.values()))
    wanted = content(one, manifest(concept="cat"))

    def begin(sequence):
        answer = publish(one, wanted, envelope(wanted, sequence), canary=0.5, soak=600)
        assert answer.status_code == 202, answer.text
        (canary,) = answer.json()["rollout"]["canaries"]
        number = answer.json()["revision"]
        active = fleet[canary].runtime.activator
        wait_until(lambda: active.active.revision == number)
        return fleet[canary], number

    canary, _ = begin(2)
    halted = one.client.post("/admin/rollout/halt", json={}, headers=one.operator)
    assert halted.status_code == 200, halted.text
    wait_until(lambda: canary.runtime.activator.active.revision == 1)
    assert canary.runtime.activator.state.last_error is None

    canary, number = begin(3)
    promoted = one.client.post(
        "/admin/rollout/promote", params={"wait": 20}, json={}, headers=one.operator
    )
    assert promoted.status_code == 200, promoted.text
    wait_until(lambda: not canary.runtime.activator.state.canary)
    # Now it is the head, and what was before it may not run on the replica that tried it either.
    older = content(one, manifest(concept="dog"))
    answer = publish(canary, older, envelope(older, 2))
    assert (answer.status_code, error_of(answer)) == (409, "replay_refused")
    assert one.runtime.store.head_number() == number
