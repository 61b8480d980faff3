"""Signed sets to test with: signers, a set of two edits with a policy, and trusted keys files."""

import base64
import json
from datetime import UTC, datetime, timedelta

from edits.manifests import Choice, RevisionContent, parse_manifest
from edits.manifests.signing import SigningKey, sign
from edits.manifests.statement import RevisionStatement
from edits.manifests.trusted_keys import TrustedKeys

NOW = datetime(2026, 6, 1, 12, 0, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=90)
BASE = "sha256:" + "a" * 64
ALICE, BOB, CAROL, MALLORY = (SigningKey.generate() for _ in range(4))
NAMES = {"alice": ALICE, "bob": BOB, "carol": CAROL}
CHOICE = Choice(tokens="last", ridge=30.0, preserve_weight=0.05, pad_weight=1.0)


def edit(name):
    return parse_manifest(
        {
            "apiVersion": "quickfix/v1",
            "kind": "ConceptEdit",
            "metadata": {"name": name, "version": 1},
            "spec": {"concept": name, "anchor": "thing", "type": "object"},
        }
    )


SET = RevisionContent((edit("gun"), edit("van-gogh")), {"art": ("gun",)}, BASE, {"gun": CHOICE})


def statement(sequence=7, content=SET, expires=LATER):
    return RevisionStatement(sequence, content.digest(), expires)


def keys_file(threshold=2, not_after=None, **keys):
    """A trusted keys file of `name=key`; `not_after` maps names to moments."""
    ends = not_after or {}
    entries = [
        {"name": name, "public": key.public}
        | ({"not_after": ends[name].strftime("%Y-%m-%dT%H:%M:%SZ")} if name in ends else {})
        for name, key in (keys or NAMES).items()
    ]
    return json.dumps({"threshold": threshold, "keys": entries}).encode()


def trusted(threshold=2, not_after=None, **keys):
    return TrustedKeys.parse(keys_file(threshold, not_after, **keys))


def signed(*keys, **fields):
    return sign(statement(**fields), keys or (ALICE, BOB))


def altered(envelope, **changes):
    """The envelope with top-level fields set to other values."""
    return json.dumps(json.loads(envelope) | changes).encode()


def with_payload(envelope, data):
    """What an attacker without keys can do: the old signatures over other bytes."""
    return altered(envelope, payload=base64.b64encode(data).decode())
