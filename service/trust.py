"""What a replica with trusted keys runs: only sets that enough of them have signed, none older.

The order matters. A set is verified before anything of it is composed, and its sequence is on the
disk before a request runs under it: after a restart nothing older can take its place.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edits.errors import SignatureInvalid, TrustError
from edits.manifests.ledger import SequenceLedger
from edits.manifests.statement import moment_text
from edits.manifests.trust import VerifiedStatement, verify
from edits.manifests.trusted_keys import LiveTrustedKeys
from service import metrics

__all__ = ["LEDGER", "SetTrust", "SignedSet"]

LEDGER = "last-verified.json"  # in the replica's state directory

_log = logging.getLogger("quickfix.trust")
_BEFORE_ALL = datetime.min.replace(tzinfo=UTC)  # when nothing had expired


@dataclass(frozen=True, slots=True)
class SignedSet:
    """A set that was verified, and what it takes to verify it again."""

    digest: str
    envelope: bytes
    verified: VerifiedStatement

    def document(self) -> dict[str, Any]:
        """As the status shows it."""
        statement = self.verified.statement
        return {
            "sequence": statement.sequence,
            "expires": moment_text(statement.expires),
            "signers": list(self.verified.signers),
        }


class SetTrust:
    """The trusted keys and the ledger of one replica. Thread-safe."""

    def __init__(self, keys_file: Path, state_dir: Path) -> None:
        """Raises TrustedKeysInvalid when the file cannot be read or breaks its schema."""
        self._keys = LiveTrustedKeys(keys_file)
        self._ledger = SequenceLedger(state_dir / LEDGER)
        self._logged: str | None = None

    def verify(self, digest: str, envelope: bytes | None, *, now: datetime) -> SignedSet:
        """The set with `digest`, if it may run at the moment `now`.

        Raises SignatureInvalid, also for a set without signatures, and what
        `edits.manifests.trust.verify` raises; LedgerInvalid.
        """
        keys = self._keys.current()
        self._log_keys_error()
        if envelope is None:
            raise SignatureInvalid(
                f"the set {digest} is not signed, and this service runs signed sets only; "
                "sign it with `quickfix sign` and publish it with its envelope"
            )
        verified = verify(envelope, keys, content_digest=digest, now=now, last=self._ledger.last())
        return SignedSet(digest, envelope, verified)

    def require_after_head(
        self, signed: SignedSet, head_digest: str, head_envelope: bytes | None
    ) -> None:
        """Raise ReplayRefused when the head is a later set, which this replica may not run yet.

        One that has expired is a later set all the same; one without good signatures has no place
        in the order.
        """
        if head_envelope is None:
            return
        try:
            head = verify(
                head_envelope, self._keys.current(), content_digest=head_digest, now=_BEFORE_ALL
            )
        except TrustError:
            return
        signed.verified.statement.require_after((head.statement.sequence, head.statement.content))

    def remember(self, signed: SignedSet) -> None:
        """From now on nothing older may run here. Raises ReplayRefused, LedgerInvalid."""
        statement = signed.verified.statement
        self._ledger.record(statement)
        metrics.SET_EXPIRES_AT.set(statement.expires.timestamp())

    def document(self) -> dict[str, Any]:
        """As the status shows it."""
        keys = self._keys.current()
        error = self._keys.last_error
        return {
            "threshold": keys.threshold,
            "keys": [key.name for key in keys.keys],
            "last_error": None if error is None else error.message,
        }

    def _log_keys_error(self) -> None:
        error = self._keys.last_error
        reason = None if error is None else error.message
        if reason is not None and reason != self._logged:
            _log.error("trusted keys refused, the last good ones stay reason=%s", reason)
        self._logged = reason
