"""Which signed sets may run: every attack by name, thresholds, ends of keys."""

import base64
import dataclasses
import json
from datetime import timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from edits.errors import (
    ContentMismatch,
    EnvelopeInvalid,
    ReplayRefused,
    SignatureInvalid,
    StatementExpired,
    StatementInvalid,
    TrustError,
)
from edits.manifests import RevisionContent
from edits.manifests.envelope import read_envelope
from edits.manifests.signing import sign
from edits.manifests.statement import PAYLOAD_TYPE
from edits.manifests.trust import verify

from .signed import (
    ALICE,
    BOB,
    CAROL,
    CHOICE,
    LATER,
    MALLORY,
    NAMES,
    NOW,
    SET,
    altered,
    edit,
    signed,
    statement,
    trusted,
    with_payload,
)

OTHER = RevisionContent((edit("beer"),))


def check(envelope, content=SET, *, keys=None, now=NOW, last=None):
    return verify(envelope, keys or trusted(), content_digest=content.digest(), now=now, last=last)


def refused(kind, words, envelope, content=SET, **options):
    with pytest.raises(kind, match=words) as error:
        check(envelope, content, **options)
    assert type(error.value) is kind


def test_a_set_with_enough_signatures_is_verified_and_names_all_its_signers():
    assert check(signed()).statement == statement()
    assert check(signed()).signers == ("alice", "bob")
    assert check(signed(CAROL, BOB, ALICE)).signers == ("alice", "bob", "carol")


# Replay: what was good once and is not the newest.


def test_an_old_set_replayed_after_a_newer_one_is_refused():
    newer = check(signed(content=OTHER, sequence=8), OTHER).statement
    last = (newer.sequence, newer.content)
    refused(
        ReplayRefused,
        "sequence 7 is older than 8, which was verified before; "
        "to go back to an old set, sign it anew with a sequence above 8",
        signed(sequence=7),
        last=last,
    )


def test_the_same_sequence_with_another_set_is_refused():
    refused(
        ReplayRefused,
        f"sequence 7 was verified before with the set {OTHER.digest()}, and this is {SET.digest()}",
        signed(sequence=7),
        last=(7, OTHER.digest()),
    )


def test_a_replay_is_called_one_even_when_it_has_expired():
    refused(ReplayRefused, "is older than 8", signed(), last=(8, OTHER.digest()), now=LATER)


def test_going_back_is_the_old_set_under_a_new_sequence():
    assert check(signed(sequence=9), last=(8, OTHER.digest())).statement.sequence == 9


def test_the_last_verified_set_is_verified_again_at_a_restart():
    assert check(signed(), last=(7, SET.digest())).signers == ("alice", "bob")


def test_the_same_set_may_be_signed_anew_with_a_later_expiry():
    renewed = signed(expires=LATER + timedelta(days=90))
    assert check(renewed, last=(7, SET.digest()), now=LATER).signers == ("alice", "bob")


# Another set than the signed one: exchanged or changed.

MISMATCH = f"the signatures are for the set {SET.digest()}, and this one is sha256:[0-9a-f]{{64}}"


def changed_sets():
    ridge = CHOICE.model_copy(update={"ridge": 1e9})
    return {
        "mix and match: the envelope of one set beside another": OTHER,
        "truncated: an edit was removed": SET.without_edit("van-gogh"),
        "emptied": RevisionContent(),
        "extended: an edit was added": SET.with_edit(edit("beer")),
        "a chosen ridge was changed": dataclasses.replace(SET, choices={"gun": ridge}),
        "a choice was dropped": dataclasses.replace(SET, choices={}),
        "a policy lost an edit": dataclasses.replace(SET, policies={"art": ()}),
        "a policy was added": dataclasses.replace(SET, policies={**SET.policies, "bare": ()}),
        "bound to another base model": dataclasses.replace(SET, fingerprint="sha256:" + "b" * 64),
    }


@pytest.mark.parametrize("name", changed_sets())
def test_a_set_that_was_not_signed_is_refused(name):
    refused(ContentMismatch, MISMATCH, signed(), changed_sets()[name])


# Time.


def test_a_statement_counts_up_to_its_last_second_and_not_from_its_expiry_on():
    assert check(signed(), now=LATER - timedelta(microseconds=1)).signers
    refused(
        StatementExpired,
        "sequence 7 expired on 2026-08-30T12:00:00Z; sign the set anew with a later expiry",
        signed(),
        now=LATER,
    )


def test_a_clock_without_a_zone_is_no_moment():
    with pytest.raises(ValueError, match="has no time zone"):
        check(signed(), now=NOW.replace(tzinfo=None))


# A statement that the attacker wrote or changed.

BOTH_WRONG = (
    "0 of 2 needed signatures: the signature of alice does not match; "
    "the signature of bob does not match; let more trusted keys sign this set"
)


@pytest.mark.parametrize(
    "fields",
    [
        {"expires": LATER + timedelta(days=3650)},
        {"sequence": 8},
        {"content": OTHER},
    ],
    ids=["expiry", "sequence", "content"],
)
def test_a_field_that_the_attacker_changed_breaks_the_signatures(fields):
    forged = statement(**fields).canonical_bytes()
    refused(SignatureInvalid, BOTH_WRONG, with_payload(signed(), forged))


def test_flipped_bytes_of_a_signature_break_it():
    envelope = json.loads(signed())
    entry = next(each for each in envelope["signatures"] if each["keyid"] == BOB.key_id)
    raw = bytearray(base64.b64decode(entry["sig"]))
    raw[5] ^= 1
    entry["sig"] = base64.b64encode(raw).decode()
    refused(
        SignatureInvalid,
        r"1 of 2 needed signatures \(alice\): the signature of bob does not match",
        json.dumps(envelope).encode(),
    )


@pytest.mark.parametrize("sig", ["", "AAAA", base64.b64encode(b"x" * 65).decode()])
def test_a_signature_of_another_length_is_refused(sig):
    entries = [{"keyid": key.key_id, "sig": sig} for key in (ALICE, BOB)]
    envelope = altered(signed(), signatures=entries)
    kind = SignatureInvalid if sig else EnvelopeInvalid
    refused(kind, "does not match" if sig else "at least 1 character", envelope)


def test_a_signature_over_another_payload_type_does_not_count():
    """The type is part of what is signed: bytes signed for another use are no statement."""
    foreign = read_envelope(signed())
    foreign.payload_type = "application/vnd.in-toto+json"
    for key in (ALICE, BOB):
        foreign.sign(key.signer())
    body = foreign.to_dict()
    refused(EnvelopeInvalid, "holds 'application/vnd.in-toto", json.dumps(body).encode())
    body["payloadType"] = PAYLOAD_TYPE
    refused(SignatureInvalid, BOTH_WRONG, json.dumps(body).encode())


def test_a_payload_in_another_form_is_refused_even_when_it_is_signed():
    envelope = read_envelope(signed())
    envelope.payload = envelope.payload + b"\n"
    for key in (ALICE, BOB):
        envelope.sign(key.signer())
    body = json.dumps(envelope.to_dict()).encode()
    refused(StatementInvalid, "the statement is not in canonical form", body)


def test_nothing_of_a_payload_is_read_before_it_is_signed_by_enough():
    refused(SignatureInvalid, "0 of 2", with_payload(signed(), b"[" * 40_000))


# Who signed.


def test_one_signature_below_the_threshold_is_refused_and_says_who_signed():
    refused(
        SignatureInvalid,
        r"^1 of 2 needed signatures \(bob\); let more trusted keys sign this set$",
        signed(BOB),
    )


def test_a_key_that_signs_twice_counts_once():
    refused(SignatureInvalid, r"1 of 2 needed signatures \(alice\)", signed(ALICE, ALICE))


def test_a_signature_that_is_copied_is_refused():
    one = json.loads(signed(ALICE))["signatures"][0]
    copied = altered(signed(ALICE), signatures=[one, one])
    refused(EnvelopeInvalid, f"two signatures of the key '{ALICE.key_id}'", copied)


def test_a_signature_that_is_copied_under_another_key_id_counts_once():
    one = json.loads(signed(ALICE))["signatures"][0]
    spelled = [one, one | {"keyid": one["keyid"].upper()}, one | {"keyid": BOB.key_id}]
    refused(
        SignatureInvalid,
        r"1 of 2 needed signatures \(alice\): the signature of bob does not match; "
        "1 signature is of no trusted key",
        altered(signed(ALICE), signatures=spelled),
    )


def test_an_unknown_key_does_not_count_and_does_no_harm():
    refused(
        SignatureInvalid,
        r"1 of 2 needed signatures \(alice\): 1 signature is of no trusted key",
        signed(ALICE, MALLORY),
    )
    refused(SignatureInvalid, "0 of 2 needed signatures: 1 signature is of", signed(MALLORY))
    assert check(signed(MALLORY, BOB, ALICE)).signers == ("alice", "bob")


def test_a_key_id_of_a_trusted_key_does_not_lend_its_trust():
    stolen = json.loads(signed(MALLORY))["signatures"][0]
    entries = [stolen | {"keyid": key.key_id} for key in (ALICE, BOB)]
    refused(SignatureInvalid, BOTH_WRONG, altered(signed(), signatures=entries))


def test_a_key_past_its_end_does_not_count_whenever_it_signed():
    keys = trusted(2, {"bob": NOW})
    assert check(signed(), keys=keys, now=NOW - timedelta(seconds=1)).signers == ("alice", "bob")
    refused(
        SignatureInvalid,
        r"1 of 2 needed signatures \(alice\): the key of bob ended on 2026-06-01T12:00:00Z",
        signed(),
        keys=keys,
    )


def test_keys_are_rotated_by_both_and_then_the_new_one_alone():
    old, both, new = trusted(1, a=ALICE), trusted(1, a=ALICE, c=CAROL), trusted(1, c=CAROL)
    by_old, by_new = signed(ALICE), signed(CAROL, sequence=8)
    assert check(by_old, keys=old).signers == ("a",)
    refused(SignatureInvalid, "0 of 1", by_new, keys=old)
    assert check(by_old, keys=both).signers == ("a",)
    assert check(by_new, keys=both).signers == ("c",)
    refused(SignatureInvalid, "0 of 1", by_old, keys=new)
    assert check(by_new, keys=new).signers == ("c",)


@given(
    st.sets(st.sampled_from(sorted(NAMES)), min_size=1),
    st.sets(st.sampled_from(sorted(NAMES))),
    st.booleans(),
    st.data(),
)
def test_a_set_holds_exactly_when_the_threshold_of_distinct_trusted_keys_signed(
    trust, signers, stranger, data
):
    threshold = data.draw(st.integers(1, len(trust)))
    keys = [NAMES[name] for name in sorted(signers)] + [MALLORY] * stranger
    if not keys:
        return
    envelope = sign(statement(), keys)
    known = trusted(threshold, **{name: NAMES[name] for name in trust})
    good = sorted(trust & signers)
    if len(good) >= threshold:
        assert list(check(envelope, keys=known).signers) == good
    else:
        refused(SignatureInvalid, f"^{len(good)} of {threshold} needed", envelope, keys=known)


@given(st.data())
def test_an_envelope_with_any_changed_byte_says_the_same_or_is_refused(data):
    envelope = bytearray(signed())
    position = data.draw(st.integers(0, len(envelope) - 1))
    envelope[position] = data.draw(st.integers(0, 255))
    try:
        verified = check(bytes(envelope))
    except TrustError:
        return
    assert verified == check(signed())


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_by_an_error_of_the_tree(data):
    for body in (data, with_payload(signed(), data), sign_raw(data)):
        with pytest.raises(TrustError):
            check(body)


def sign_raw(data):
    envelope = read_envelope(signed())
    envelope.payload = data
    for key in (ALICE, BOB):
        envelope.sign(key.signer())
    return json.dumps(envelope.to_dict()).encode()


@given(st.sets(st.sampled_from(sorted(NAMES)), min_size=1), st.integers(0, 400))
def test_the_verdict_is_that_of_ed25519_over_the_written_out_encoding(signers, position):
    """An oracle without the library that signs: DSSE's encoding by hand, `cryptography` alone."""
    envelope = json.loads(sign(statement(), [NAMES[name] for name in sorted(signers)]))
    body = bytearray(base64.b64decode(envelope["payload"]))
    if position < len(body):
        body[position] ^= 1
    envelope["payload"] = base64.b64encode(body).decode()
    kind = envelope["payloadType"].encode()
    encoded = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), bytes(body))
    good = set()
    for name, key in NAMES.items():
        public = Ed25519PublicKey.from_public_bytes(base64.b64decode(key.public))
        for entry in envelope["signatures"]:
            try:
                public.verify(base64.b64decode(entry["sig"]), encoded)
            except InvalidSignature:
                continue
            good.add(name)
    assert good == (set() if position < len(body) else signers)
    data = json.dumps(envelope).encode()
    if len(good) >= 2:
        assert set(check(data).signers) == good
    else:
        refused(SignatureInvalid, f"^{len(good)} of 2", data)
