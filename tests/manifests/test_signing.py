"""Keys in files and signatures in envelopes: made, added to, and read within limits."""

import base64
import json
import stat
import time
import tracemalloc

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)

from edits.errors import EnvelopeInvalid, SigningKeyInvalid, StatementInvalid
from edits.manifests.envelope import MAX_SIGNATURES, read_envelope, unverified_statement
from edits.manifests.signing import (
    SigningKey,
    add_signature,
    read_signing_key,
    sign,
    write_signing_key,
)
from edits.manifests.statement import PAYLOAD_TYPE

from .signed import ALICE, BOB, altered, signed, statement, with_payload


def test_an_envelope_is_dsse_json_and_its_signature_is_ed25519_over_the_encoded_statement():
    """Checked without the library: the encoding of the DSSE protocol, written out."""
    envelope = json.loads(signed(ALICE))
    assert envelope.keys() == {"payload", "payloadType", "signatures"}
    body = base64.b64decode(envelope["payload"])
    assert body == statement().canonical_bytes()
    kind = b"application/vnd.quickfix.revision+json"
    assert envelope["payloadType"].encode() == kind == PAYLOAD_TYPE.encode()
    encoded = b"DSSEv1 38 " + kind + b" " + str(len(body)).encode() + b" " + body
    (signature,) = envelope["signatures"]
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(ALICE.public))
    public.verify(base64.b64decode(signature["sig"]), encoded)
    assert signature["keyid"] == ALICE.key_id


def test_signers_may_sign_one_after_another_in_any_order():
    together = sign(statement(), [ALICE, BOB])
    assert add_signature(sign(statement(), [ALICE]), BOB) == together
    assert add_signature(sign(statement(), [BOB]), ALICE) == together
    assert add_signature(together, BOB) == together
    assert unverified_statement(together) == statement()


def test_an_envelope_of_something_else_is_not_signed():
    with pytest.raises(StatementInvalid, match="a statement has exactly the fields"):
        add_signature(with_payload(signed(), b"{}"), BOB)
    with pytest.raises(EnvelopeInvalid, match="give the envelope of a revision"):
        add_signature(altered(signed(), payloadType="application/vnd.in-toto+json"), BOB)


def test_an_envelope_that_is_full_takes_no_signature():
    entries = [{"keyid": f"k{n}", "sig": "AAAA"} for n in range(MAX_SIGNATURES)]
    full = altered(signed(), signatures=entries)
    assert len(read_envelope(full).signatures) == MAX_SIGNATURES
    with pytest.raises(EnvelopeInvalid, match="at most 64 signatures"):
        add_signature(full, ALICE)


def test_unknown_fields_and_the_other_alphabet_of_base64_are_read_as_dsse_asks():
    envelope = json.loads(signed(ALICE))
    envelope["signatures"][0]["cert"] = "x"
    entry = envelope["signatures"][0]
    entry["sig"] = entry["sig"].replace("+", "-").replace("/", "_")
    read = read_envelope(json.dumps(envelope | {"note": 1}).encode())
    assert read == read_envelope(signed(ALICE))


def bad_envelopes():
    good = signed()
    one = json.loads(good)["signatures"][0]
    return {
        "empty": (b"", "the envelope is not JSON"),
        "not UTF-8": (b"\xff\xff", "the envelope is not JSON"),
        "a list": (b"[]", "the envelope"),
        "deeply nested": (b"[" * 60_000, "the envelope is not JSON"),
        "nested in a field": (
            good[:-1] + b',"x":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}",
            "the envelope is not JSON",
        ),
        "a number of many digits": (good[:-1] + b',"x":' + b"9" * 60_000 + b"}", "is not JSON"),
        "a key twice": (good[:-1] + b',"payload":"e30="}', "a key stands twice"),
        "no payload": (b'{"payloadType":"x","signatures":[]}', "payload: Field required"),
        "payload a number": (altered(good, payload=1), "payload: Input should be a valid string"),
        "payload not base64": (altered(good, payload="%%%"), "the envelope is not base64"),
        "payload not ASCII": (altered(good, payload="é"), "the envelope is not base64"),
        "payload half a character": (
            good.replace(b'"payload":"', b'"payload":"\\ud800', 1),
            "the envelope is not",
        ),
        "other type": (altered(good, payloadType="text/plain"), "holds 'text/plain', not"),
        "type null": (altered(good, payloadType=None), "payloadType: Input should be a valid str"),
        "no signature": (altered(good, signatures=[]), "signatures: List should have at least 1"),
        "signatures a mapping": (altered(good, signatures={}), "signatures: Input should be a"),
        "signature a text": (altered(good, signatures=["x"]), r"signatures\.0: Input should be"),
        "signature without key id": (
            altered(good, signatures=[{"sig": one["sig"]}]),
            r"signatures\.0\.keyid: Field required",
        ),
        "signature not base64": (
            altered(good, signatures=[one | {"sig": "!"}]),
            "the envelope is not base64",
        ),
        "65 signatures": (
            altered(good, signatures=[{"keyid": f"k{n}", "sig": "AAAA"} for n in range(65)]),
            "signatures: List should have at most 64 items",
        ),
        "a key signs twice": (
            altered(good, signatures=[one, one]),
            f"two signatures of the key '{one['keyid']}'; keep one",
        ),
    }


@pytest.mark.parametrize("name", bad_envelopes())
def test_bytes_that_are_no_envelope_are_refused(name):
    data, words = bad_envelopes()[name]
    with pytest.raises(EnvelopeInvalid, match=words):
        read_envelope(data)


@pytest.mark.parametrize("kind", ["signatures", "bytes"])
def test_an_endless_envelope_is_refused_at_once_and_takes_no_memory(kind):
    entry = json.loads(signed(ALICE))["signatures"][0]
    endless = (
        altered(signed(), signatures=[entry] * 100_000)
        if kind == "signatures"
        else altered(signed(), payload="A" * 10_000_000)
    )
    assert len(endless) > 10_000_000
    tracemalloc.start()
    started = time.perf_counter()
    with pytest.raises(EnvelopeInvalid, match="the envelope has more than 65536 bytes"):
        read_envelope(endless)
    seconds, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 0.1
    assert peak < 64 * 1024


def test_a_private_key_is_for_its_own_user_only_and_reads_back(tmp_path):
    path = tmp_path / "alice.pem"
    write_signing_key(ALICE, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_signing_key(path).key_id == ALICE.key_id
    assert [file.name for file in tmp_path.iterdir()] == ["alice.pem"]


def test_a_key_that_is_there_is_never_lost_without_force(tmp_path):
    path = tmp_path / "key.pem"
    write_signing_key(ALICE, path)
    with pytest.raises(SigningKeyInvalid, match="exists; a lost key cannot be made again"):
        write_signing_key(BOB, path)
    assert read_signing_key(path).key_id == ALICE.key_id
    write_signing_key(BOB, path, force=True)
    assert read_signing_key(path).key_id == BOB.key_id
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["key.pem"]


def test_an_encrypted_key_needs_its_passphrase(tmp_path):
    path = tmp_path / "key.pem"
    write_signing_key(ALICE, path, passphrase="correct horse")
    assert b"ENCRYPTED" in path.read_bytes()
    assert read_signing_key(path, lambda: "correct horse").key_id == ALICE.key_id
    with pytest.raises(SigningKeyInvalid, match="the passphrase is wrong"):
        read_signing_key(path, lambda: "wrong")
    with pytest.raises(SigningKeyInvalid, match="is encrypted; give its passphrase"):
        read_signing_key(path)


def test_the_passphrase_of_a_plain_key_is_not_asked_for(tmp_path):
    path = tmp_path / "key.pem"
    write_signing_key(ALICE, path)

    def ask():
        raise AssertionError("asked")

    assert read_signing_key(path, ask).key_id == ALICE.key_id


def other_key():
    return generate_private_key(SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "cannot be read: No such file or directory"),
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.write_bytes(b"secret"), "it holds no private key in PEM"),
        (lambda path: path.write_bytes(ALICE.public_pem()), "it holds no private key in PEM"),
        (lambda path: path.write_bytes(other_key()), "is not ed25519; make one with"),
    ],
)
def test_a_file_that_is_no_key_is_refused_by_name(tmp_path, make, words):
    path = tmp_path / "key.pem"
    make(path)
    with pytest.raises(SigningKeyInvalid, match=rf"key\.pem .*{words}") as refused:
        read_signing_key(path)
    assert "secret" not in refused.value.message


def test_a_key_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(SigningKeyInvalid, match="cannot be written: No such file"):
        write_signing_key(ALICE, tmp_path / "gone" / "key.pem")


def test_a_key_is_not_written_through_a_link(tmp_path):
    path = tmp_path / "key.pem"
    path.symlink_to(tmp_path / "elsewhere.pem")
    with pytest.raises(SigningKeyInvalid, match="exists"):
        write_signing_key(ALICE, path)
    assert not (tmp_path / "elsewhere.pem").exists()


@pytest.mark.parametrize("force", [False, True])
def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch, force):
    path = tmp_path / "key.pem"
    if force:
        write_signing_key(ALICE, path)

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SigningKeyInvalid, match="cannot be written: No space left on device"):
        write_signing_key(BOB, path, force=force)
    assert [file.name for file in tmp_path.iterdir()] == (["key.pem"] if force else [])
    if force:
        assert read_signing_key(path).key_id == ALICE.key_id


def test_a_private_key_does_not_show_in_text():
    key = SigningKey.generate()
    assert repr(key) == "SigningKey()"
    assert load_pem_public_key(key.public_pem()) == key.private.public_key()
    assert len(key.key_id) == 64
