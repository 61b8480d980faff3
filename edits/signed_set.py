"""A signed set as two files: the exact bytes of a revision's content, and the envelope over them.

Files are read within limits, and what a signer asks for is held against an envelope that is there.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from edits.errors import QuickFixError
from edits.manifests import RevisionContent, digest
from edits.manifests.statement import RevisionStatement, moment_text, parse_moment

MAX_SET_BYTES = 16 * 1024 * 1024
_DURATION = re.compile(r"([1-9][0-9]{0,3})([dh])")
_UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1)}


@dataclass(frozen=True)
class SigningRequest:
    """What a signer asks for at the moment `now`; what is None is left to the envelope."""

    content: str
    sequence: int | None
    expires: str | None
    now: datetime

    def statement(self) -> RevisionStatement:
        """A new statement. Raises QuickFixError, StatementInvalid."""
        if self.sequence is None or self.expires is None:
            raise QuickFixError(
                "a new envelope needs --sequence, above that of the last signed set, and --expires",
                param="sequence" if self.sequence is None else "expires",
            )
        statement = RevisionStatement(self.sequence, self.content, self._moment(self.expires))
        if statement.expires <= self.now:
            raise QuickFixError(f"--expires {self.expires} is in the past", param="expires")
        return statement

    def require(self, there: RevisionStatement, target: Path) -> None:
        """Raise QuickFixError unless the statement that is there is what was asked for."""
        new = f"give --sequence, --expires and --force to start {target.name} anew"
        if there.content != self.content:
            raise QuickFixError(
                f"{target} signs another set, {there.content}, not {self.content}; {new}",
                param="out",
            )
        if self.sequence not in (None, there.sequence):
            raise QuickFixError(
                f"{target} has sequence {there.sequence}, not {self.sequence}; "
                f"leave --sequence out to sign that one too, or {new}",
                param="sequence",
            )
        # As text: a duration counts from now, and the second signer's would be another moment.
        if self.expires not in (None, moment_text(there.expires)):
            raise QuickFixError(
                f"{target} expires on {moment_text(there.expires)}; "
                f"leave --expires out to sign that too, or {new}",
                param="expires",
            )
        if there.expires <= self.now:
            raise QuickFixError(
                f"{target} expired on {moment_text(there.expires)}; {new}", param="expires"
            )

    def _moment(self, text: str) -> datetime:
        if match := _DURATION.fullmatch(text):
            return self.now.replace(microsecond=0) + int(match[1]) * _UNITS[match[2]]
        try:
            return parse_moment(text)
        except ValueError as error:
            raise QuickFixError(
                f"--expires: {error}, nor as '90d' or '12h'", param="expires"
            ) from None


def read_set(path: Path) -> tuple[RevisionContent, str]:
    """The set in a file and the digest of its bytes. Raises QuickFixError, ManifestInvalid."""
    data = read_bounded(path, MAX_SET_BYTES)
    return RevisionContent.from_bytes(data), digest(data)


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a file. Raises QuickFixError when it is unreadable or over the limit."""
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise QuickFixError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise QuickFixError(f"{path} has more than {limit} bytes; that is no file of a signed set")
    return data
