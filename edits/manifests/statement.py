"""What signers sign of a revision: which set, its place in the order of sets, and until when.

The digest stands for the whole set, its policies, its settings and its base model: the statement
is small whatever the set holds, and nothing of the set can be changed without changing it.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from edits.errors import ReplayRefused, StatementInvalid
from edits.manifests.canonical import canonical_json

PAYLOAD_TYPE = "application/vnd.quickfix.revision+json"
MAX_SEQUENCE = 2**31 - 1  # fits an SQL integer and a JSON number
MAX_BYTES = 1024  # a statement has some 220

_HEADER = {"apiVersion": "quickfix/v1", "kind": "RevisionStatement"}
_KEYS = {*_HEADER, "sequence", "content", "expires"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


class LastVerified(NamedTuple):
    """The highest sequence that was verified, and the digest of its set."""

    sequence: int
    content: str


@dataclass(frozen=True, slots=True)
class RevisionStatement:
    """One set, as signed: its digest, its sequence, and the moment from which it counts no more.

    The signer chooses the sequence; in one deployment a higher one replaces every lower one, and
    one sequence is one set. `expires` is kept in UTC and has no fractions of a second.

    Raises StatementInvalid when a field is out of bounds.
    """

    sequence: int
    content: str
    expires: datetime

    def __post_init__(self) -> None:
        check_sequence(self.sequence)
        check_content(self.content)
        if self.expires.tzinfo is None or self.expires.microsecond:
            raise StatementInvalid(
                f"the expiry {self.expires.isoformat()} needs a time zone and whole seconds",
                param="expires",
            )
        object.__setattr__(self, "expires", self.expires.astimezone(UTC))

    def require_after(self, last: tuple[int, str] | None) -> None:
        """Raise ReplayRefused unless this may follow `last`, the last one that was verified."""
        if last is None:
            return
        sequence, content = last
        if self.sequence < sequence:
            raise ReplayRefused(
                f"sequence {self.sequence} is older than {sequence}, which was verified before; "
                f"to go back to an old set, sign it anew with a sequence above {sequence}",
                param="sequence",
            )
        if self.sequence == sequence and self.content != content:
            raise ReplayRefused(
                f"sequence {sequence} was verified before with the set {content}, and this is "
                f"{self.content}; sign a changed set with a sequence above {sequence}",
                param="sequence",
            )

    def canonical_bytes(self) -> bytes:
        """The bytes that are signed."""
        return canonical_json(
            {
                **_HEADER,
                "sequence": self.sequence,
                "content": self.content,
                "expires": moment_text(self.expires),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "RevisionStatement":
        """The statement that `canonical_bytes` wrote. Raises StatementInvalid for other bytes."""
        if len(data) > MAX_BYTES:
            raise StatementInvalid(
                f"the statement has {len(data)} bytes; at most {MAX_BYTES} are read"
            )
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise StatementInvalid(f"the statement is not JSON: {error}") from None
        if not isinstance(document, dict) or set(document) != _KEYS:
            raise StatementInvalid(
                f"a statement has exactly the fields {', '.join(sorted(_KEYS))}; this has others"
            )
        for key, value in _HEADER.items():
            if document[key] != value:
                raise StatementInvalid(f"{key} must be {value!r}", param=key)
        try:
            expires = parse_moment(document["expires"])
        except ValueError as error:
            raise StatementInvalid(f"expires: {error}", param="expires") from None
        statement = cls(document["sequence"], document["content"], expires)
        # One comparison refuses duplicate keys, white space and any second spelling.
        if statement.canonical_bytes() != data:
            raise StatementInvalid("the statement is not in canonical form")
        return statement


def check_sequence(value: object) -> int:
    """`value` if it may be a sequence. Raises StatementInvalid."""
    # `type`, not `isinstance`: true is an int to Python.
    if type(value) is not int or not 1 <= value <= MAX_SEQUENCE:
        raise StatementInvalid(
            f"the sequence {value!r:.40} is not a whole number from 1 to {MAX_SEQUENCE}",
            param="sequence",
        )
    return value


def check_content(value: object) -> str:
    """`value` if it may be a set's digest. Raises StatementInvalid."""
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise StatementInvalid(
            f"the content {value!r:.90} is not 'sha256:' and 64 lower-case hexadecimal digits",
            param="content",
        )
    return value


def parse_moment(text: object) -> datetime:
    """A moment in RFC 3339, in UTC and whole seconds. Raises ValueError for anything else."""
    if not isinstance(text, str) or not _MOMENT.fullmatch(text):
        raise ValueError(f"{text!r:.60} is not a moment such as '2027-01-31T12:00:00Z'")
    return datetime.fromisoformat(text)


def moment_text(moment: datetime) -> str:
    """The spelling that `parse_moment` reads."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
