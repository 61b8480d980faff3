"""Whether a signed set may run: signatures, then what they say, then its order and its time.

The order of the checks is TUF's: nothing of a statement is read before enough trusted keys have
signed it, and a replay is called a replay also when it has expired.
"""

from dataclasses import dataclass
from datetime import datetime

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import UnverifiedSignatureError

from edits.errors import ContentMismatch, SignatureInvalid, StatementExpired
from edits.manifests.envelope import read_envelope
from edits.manifests.statement import RevisionStatement, moment_text
from edits.manifests.trusted_keys import TrustedKeys


@dataclass(frozen=True, slots=True)
class VerifiedStatement:
    """A statement that holds, and the names of all trusted signers of it, sorted."""

    statement: RevisionStatement
    signers: tuple[str, ...]


def verify(
    envelope: bytes,
    keys: TrustedKeys,
    *,
    content_digest: str,
    now: datetime,
    last: tuple[int, str] | None = None,
) -> VerifiedStatement:
    """The statement in `envelope`, if the set with `content_digest` may run at the moment `now`.

    `content_digest` is computed from the set's bytes that are to run, never taken from elsewhere.
    `last` is the highest sequence that was verified before, with its digest.

    Raises EnvelopeInvalid, SignatureInvalid, StatementInvalid, ContentMismatch, ReplayRefused or
    StatementExpired, in this order of checks; ValueError when `now` has no time zone.
    """
    if now.tzinfo is None:
        raise ValueError(f"{now!r} has no time zone; an expiry is a moment in UTC")
    opened = read_envelope(envelope)
    signers = _signers(opened, keys, now)
    statement = RevisionStatement.from_bytes(opened.payload)
    if statement.content != content_digest:
        raise ContentMismatch(
            f"the signatures are for the set {statement.content}, and this one is "
            f"{content_digest}: it was exchanged or changed; give the set that was signed"
        )
    statement.require_after(last)
    if now >= statement.expires:
        raise StatementExpired(
            f"sequence {statement.sequence} expired on {moment_text(statement.expires)}; "
            "sign the set anew with a later expiry"
        )
    return VerifiedStatement(statement, signers)


def _signers(envelope: Envelope, keys: TrustedKeys, now: datetime) -> tuple[str, ...]:
    """The names behind the good signatures. Raises SignatureInvalid below the threshold."""
    signed = envelope.pae()
    good, notes = [], []
    unknown = set(envelope.signatures)
    for key in keys.keys:
        signature = envelope.signatures.get(key.key_id)
        if signature is None:
            continue
        unknown.discard(key.key_id)
        try:
            key.public.verify_signature(signature, signed)
        except UnverifiedSignatureError:
            notes.append(f"the signature of {key.name} does not match")
            continue
        if key.is_good(now):
            good.append(key.name)
        elif key.not_after:
            notes.append(f"the key of {key.name} ended on {moment_text(key.not_after)}")
    if len(good) >= keys.threshold:
        return tuple(sorted(good))
    if unknown:
        count = "1 signature is" if len(unknown) == 1 else f"{len(unknown)} signatures are"
        notes.append(f"{count} of no trusted key")
    found = f"{len(good)} of {keys.threshold} needed signatures"
    by = f" ({', '.join(sorted(good))})" if good else ""
    why = f": {'; '.join(notes)}" if notes else ""
    raise SignatureInvalid(f"{found}{by}{why}; let more trusted keys sign this set")
