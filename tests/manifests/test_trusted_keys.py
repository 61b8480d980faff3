"""The trusted keys file: strict at the start, followed live, never lost to a bad version of it."""

import base64
import json
import os
import threading
from datetime import UTC, datetime

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edits.errors import TrustedKeysInvalid
from edits.manifests.trusted_keys import LiveTrustedKeys, TrustedKeys

from .signed import ALICE, BOB, CAROL, NAMES, NOW, keys_file, trusted


def names(keys):
    return [key.name for key in keys.keys]


def test_keys_are_read_from_yaml_as_base64_or_pem():
    pem = ALICE.public_pem().decode()
    text = yaml.safe_dump(
        {
            "threshold": 1,
            "keys": [
                {"name": "alice", "public": pem},
                {"name": "bob", "public": BOB.public, "not_after": "2027-01-31T12:00:00Z"},
            ],
        }
    )
    keys = TrustedKeys.parse(text.encode())
    assert [key.key_id for key in keys.keys] == [ALICE.key_id, BOB.key_id]
    assert keys.keys[0].not_after is None
    assert keys.keys[1].not_after == datetime(2027, 1, 31, 12, tzinfo=UTC)
    assert keys.threshold == 1


def test_a_moment_needs_no_quotes():
    text = f"threshold: 1\nkeys:\n  - {{name: a, public: '{ALICE.public}', not_after: %s}}\n"
    keys = TrustedKeys.parse((text % "2026-06-01T12:00:00Z").encode())
    assert keys.keys[0].not_after == NOW
    assert TrustedKeys.parse((text % "null").encode()).keys[0].not_after is None


def ec_key():
    return (
        generate_private_key(SECP256R1())
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def changed(**fields):
    return json.dumps(json.loads(keys_file()) | fields).encode()


def one(**fields):
    entry = {"name": "a", "public": ALICE.public} | fields
    return json.dumps({"threshold": 1, "keys": [entry]}).encode()


BAD = {
    "empty": (b"", None, "is not a mapping with the fields threshold and keys"),
    "a list": (b"[]", None, "is not a mapping with the fields threshold and keys"),
    "not UTF-8": (b"\xff", None, "UTF-8"),
    "too long": (b"#" * 300_000, None, "has more than 262144 bytes; keep only its keys"),
    "deeply nested": (b"x: " + b"[" * 1000, "x.0.0.0", "nests deeper than 20 levels"),
    "an object": (b"!!python/object/apply:os.system [id]", None, "uses the YAML tag"),
    "an alias": (b"a: &a [1]\nb: *a", "a", "uses a YAML anchor or alias"),
    "threshold twice": (b"threshold: 1\nthreshold: 2", "threshold", "the key stands twice"),
    "unknown field": (changed(min=1), "min", "Extra inputs are not permitted"),
    "no threshold": (b"keys: []", "threshold", "Field required"),
    "threshold 0": (changed(threshold=0), "threshold", "greater than or equal to 1"),
    "threshold over keys": (
        changed(threshold=4),
        "threshold",
        "4 signatures cannot come from 3 keys; lower it or add keys",
    ),
    "threshold as text": (changed(threshold="2"), "threshold", "valid integer"),
    "threshold true": (changed(threshold=True), "threshold", "valid integer"),
    "no keys": (changed(keys=[]), "keys", "at least 1 item"),
    "65 keys": (changed(keys=json.loads(keys_file())["keys"][:1] * 65), "keys", "at most 64"),
    "a name twice": (
        json.dumps(
            {
                "threshold": 1,
                "keys": [
                    {"name": "a", "public": ALICE.public},
                    {"name": "a", "public": BOB.public},
                ],
            }
        ).encode(),
        "keys",
        "two entries have the name a; keep one",
    ),
    "a key twice": (
        json.dumps(
            {
                "threshold": 2,
                "keys": [
                    {"name": "a", "public": ALICE.public},
                    {"name": "b", "public": ALICE.public_pem().decode()},
                ],
            }
        ).encode(),
        "keys",
        f"two entries are the key {ALICE.key_id}; keep one",
    ),
    "unknown field of a key": (one(role="x"), "keys.0.role", "Extra inputs are not permitted"),
    "a name with spaces": (one(name="a b"), "keys.0.name", "match pattern"),
    "key a number": (one(public=1), "keys.0.public", "must be text: PEM, or base64 of 32 bytes"),
    "key of 31 bytes": (
        one(public=base64.b64encode(b"x" * 31).decode()),
        "keys.0.public",
        "is neither a public key in PEM nor base64 of 32 bytes",
    ),
    "key no base64": (one(public="%"), "keys.0.public", "is neither a public key in PEM nor"),
    "key half a PEM": (
        one(public="-----BEGIN PUBLIC KEY-----"),
        "keys.0.public",
        "is neither a public key in PEM nor",
    ),
    "key of another kind": (one(public=ec_key()), "keys.0.public", "is not an ed25519 key"),
    "a private key": (
        one(public=ALICE.private_pem().decode()),
        "keys.0.public",
        "is a private key; put the public one here, and replace the pair",
    ),
    "end without a zone": (
        one(not_after="2027-01-31"),
        "keys.0.not_after",
        "'2027-01-31' is not a moment such as '2027-01-31T12:00:00Z'",
    ),
    "end a number": (one(not_after=1), "keys.0.not_after", "is not a moment such as"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_breaks_the_schema_is_refused_and_names_the_field(name):
    data, param, words = BAD[name]
    with pytest.raises(TrustedKeysInvalid, match=r"^the trusted keys file") as refused:
        TrustedKeys.parse(data)
    assert words in refused.value.message
    assert refused.value.param == param
    assert "PRIVATE" not in refused.value.message


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    for read in (TrustedKeys.read, LiveTrustedKeys):
        with pytest.raises(TrustedKeysInvalid, match="cannot be read: No such file or directory"):
            read(tmp_path / "gone.yaml")
    with pytest.raises(TrustedKeysInvalid, match="cannot be read: Is a directory"):
        TrustedKeys.read(tmp_path)


def replace(path, data):
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(data)
    fresh.replace(path)


def test_a_changed_file_counts_at_the_next_call(tmp_path):
    path = tmp_path / "trusted.yaml"
    path.write_bytes(keys_file(1, alice=ALICE))
    live = LiveTrustedKeys(path)
    assert names(live.current()) == ["alice"]
    assert live.current() is live.current(), "an unchanged file is not read again"
    replace(path, keys_file(1, alice=ALICE, carol=CAROL))
    assert names(live.current()) == ["alice", "carol"]
    replace(path, keys_file(1, carol=CAROL))
    assert names(live.current()) == ["carol"]
    assert live.last_error is None


def test_a_file_that_turns_bad_leaves_the_last_good_keys_and_says_why(tmp_path):
    path = tmp_path / "trusted.yaml"
    path.write_bytes(keys_file())
    live = LiveTrustedKeys(path)
    for data in (b"threshold: [", keys_file(4), b""):
        replace(path, data)
        for _ in range(2):
            assert live.current() == trusted()
            assert isinstance(live.last_error, TrustedKeysInvalid)
    replace(path, keys_file(1, bob=BOB))
    assert names(live.current()) == ["bob"]
    assert live.last_error is None


def test_a_file_that_goes_away_and_comes_back_counts_again(tmp_path):
    path, aside = tmp_path / "trusted.yaml", tmp_path / "aside.yaml"
    path.write_bytes(keys_file())
    live = LiveTrustedKeys(path)
    path.rename(aside)
    assert live.current() == trusted()
    assert "No such file" in live.last_error.message
    aside.rename(path)
    assert live.current() == trusted()
    assert live.last_error is None


def test_a_configmap_mount_is_followed_through_its_symlink(tmp_path):
    def mount(version, data):
        folder = tmp_path / version
        folder.mkdir()
        (folder / "trusted.yaml").write_bytes(data)
        # Same size and time as the last version: only the file itself is another.
        os.utime(folder / "trusted.yaml", (1, 1))
        swap = tmp_path / "..data_tmp"
        swap.symlink_to(version)
        swap.replace(tmp_path / "..data")

    mount("..v1", keys_file(1, alice=ALICE))
    path = tmp_path / "trusted.yaml"
    path.symlink_to("..data/trusted.yaml")
    live = LiveTrustedKeys(path)
    assert [key.key_id for key in live.current().keys] == [ALICE.key_id]
    mount("..v2", keys_file(1, alice=CAROL))
    assert [key.key_id for key in live.current().keys] == [CAROL.key_id]


def test_threads_never_see_anything_but_a_whole_file(tmp_path):
    path = tmp_path / "trusted.yaml"
    versions = [keys_file(1, alice=ALICE), keys_file(2, alice=ALICE, bob=BOB), keys_file(**NAMES)]
    path.write_bytes(versions[0])
    live = LiveTrustedKeys(path)
    whole = {len(TrustedKeys.parse(data).keys): TrustedKeys.parse(data) for data in versions}
    seen, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            keys = live.current()
            seen.append(keys == whole[len(keys.keys)])

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for data in versions * 10:
        replace(path, data)
    stop.set()
    for thread in threads:
        thread.join()
    assert seen
    assert all(seen)
    assert live.last_error is None
