"""A YAML file of hashed secrets: read again when it changes, compared in constant time.

The admin tokens and the API keys are two such files. Secrets are long random strings, so a plain
SHA-256 of them is enough.
"""

import hashlib
import hmac
import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Generic, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edits.errors import QuickFixError
from service.errors import Unauthenticated

__all__ = ["HashedEntry", "HashedFile", "StrictFields", "bearer", "sha256_of"]

_log = logging.getLogger("quickfix.auth")


class StrictFields(BaseModel):
    """What such a file is made of: nothing is coerced, unknown fields are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class HashedEntry(StrictFields):
    """One secret: only the SHA-256 of its text is kept."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9._-]+$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


Entry = TypeVar("Entry", bound=HashedEntry)


class HashedFile(Generic[Entry]):
    """The entries of one file; a file that turns bad leaves the last good ones. Thread-safe."""

    title: ClassVar[str]  # what messages call the file
    refusal: ClassVar[type[QuickFixError]]  # what a bad file raises at start

    def __init__(self, path: Path) -> None:
        """Raises `refusal` when the file cannot be read or breaks its schema."""
        self._path = path
        self._lock = threading.Lock()
        self._complaint: str | None = None
        self._seen = self._stamp()
        self._entries = self._parsed(self._text())

    def entries(self) -> tuple[Entry, ...]:
        """The entries of the file as it is now."""
        with self._lock:
            try:
                stamp = self._stamp()
                if stamp != self._seen:
                    text = self._text()  # what cannot be read now is tried again at the next call
                    self._seen = stamp
                    self._entries = self._parsed(text)
                    self._complaint = None
                    _log.info("%s read again count=%d", self.title, len(self._entries))
            except self.refusal as error:
                assert isinstance(error, QuickFixError)  # noqa: S101 - what `refusal` is
                if error.message != self._complaint:  # once, not at every call
                    self._complaint = error.message
                    _log.error(
                        "%s refused, last good one stays reason=%s", self.title, error.message
                    )
            return self._entries

    def _parse(self, document: object) -> Sequence[Entry]:
        """The entries of a document. Raises ValidationError."""
        raise NotImplementedError

    def _stamp(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise self._refused(f"cannot be read: {error.strerror}") from error
        # The change time, too: a mended permission and a copy that keeps its date change no other.
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino

    def _text(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise self._refused(f"cannot be read: {error.strerror}") from error

    def _parsed(self, text: bytes) -> tuple[Entry, ...]:
        try:
            found = self._parse(yaml.safe_load(text.decode()))
        except ValidationError as error:
            first = error.errors(include_input=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise self._refused(f"is refused: {field}: {first['msg']}") from None
        except (yaml.YAMLError, ValueError, RecursionError):
            # ValueError: text that is not UTF-8, and dates that are none. Parts of the file stand
            # in these messages, and so perhaps a secret: they are not passed on.
            raise self._refused("is not YAML") from None
        for field in ("name", "sha256"):
            if len({getattr(entry, field) for entry in found}) != len(found):
                raise self._refused(f"is refused: two entries have one {field}")
        return tuple(found)

    def _refused(self, reason: str) -> QuickFixError:
        return self.refusal(f"the {self.title} {reason}")


def bearer(entries: Iterable[Entry], authorization: str | None, *, secret: str) -> Entry:
    """The entry whose secret an `Authorization` header carries. Raises Unauthenticated."""
    scheme, _, text = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not text.strip():
        raise Unauthenticated(f"send `Authorization: Bearer <{secret}>`")
    given = sha256_of(text.strip())
    found: Entry | None = None
    for entry in entries:  # all of them: the time must not tell which one matched
        if hmac.compare_digest(entry.sha256, given):
            found = entry
    if found is None:
        raise Unauthenticated(f"the {secret} is not known")
    return found


def sha256_of(secret: str) -> str:
    """The hash that stands in a file for a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
