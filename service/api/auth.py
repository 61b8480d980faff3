"""Bearer tokens of the admin routes: hashed at rest, compared in constant time, rotated live."""

import hashlib
import hmac
import logging
import os
import secrets
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import Forbidden, TokensInvalid, Unauthenticated

__all__ = ["FileTokens", "GeneratedToken", "Principal", "Role", "Tokens", "authenticate"]

_log = logging.getLogger("quickfix.auth")

Role = Literal["viewer", "operator"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls: the name of the token and its role."""

    name: str
    role: Role

    def require(self, role: Role) -> None:
        """Raise Forbidden unless this principal may do what `role` may; operators may all."""
        if role == "operator" and self.role != "operator":
            raise Forbidden(f"this call needs role operator; token {self.name!r} is {self.role}")


class TokenEntry(BaseModel):
    """One token: only the SHA-256 of its text is kept."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9._-]+$")]
    role: Role
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _TokensFile(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    tokens: Annotated[list[TokenEntry], Field(min_length=1, max_length=1000)]


class Tokens(Protocol):
    """Where the known tokens come from."""

    def entries(self) -> tuple[TokenEntry, ...]:
        """The tokens that are good now."""
        ...


class FileTokens:
    """The tokens file, read again when it changes; a file that turns bad leaves the last good."""

    def __init__(self, path: Path) -> None:
        """Raises TokensInvalid when the file cannot be read or breaks its schema."""
        self._path = path
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._entries = _read_tokens(path)

    def entries(self) -> tuple[TokenEntry, ...]:
        """The tokens of the file as it is now."""
        with self._lock:
            try:
                stamp = self._stamp()
                if stamp != self._seen:
                    self._seen = stamp
                    self._entries = _read_tokens(self._path)
                    _log.info("tokens read again count=%d", len(self._entries))
            except TokensInvalid as error:
                _log.error("tokens file refused, last good tokens stay reason=%s", error.message)
            return self._entries

    def _stamp(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except OSError as error:
            raise TokensInvalid(f"the tokens file cannot be read: {error.strerror}") from error
        return status.st_mtime_ns, status.st_size, status.st_ino


class GeneratedToken:
    """One operator token made at start and written to `operator.token` in the state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "operator.token"
        token = secrets.token_urlsafe(32)
        _write_private(self.path, token + "\n")
        self._entry = TokenEntry(name="generated", role="operator", sha256=_hash(token))
        _log.warning("no tokens file is set: one operator token was written to %s", self.path)

    def entries(self) -> tuple[TokenEntry, ...]:
        """The one generated token."""
        return (self._entry,)


def authenticate(tokens: Tokens, authorization: str | None) -> Principal:
    """The principal of an `Authorization` header. Raises Unauthenticated."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("send `Authorization: Bearer <token>`")
    given = _hash(token.strip())
    found: TokenEntry | None = None
    for entry in tokens.entries():  # all of them: the time must not tell which one matched
        if hmac.compare_digest(entry.sha256, given):
            found = entry
    if found is None:
        raise Unauthenticated("the token is not known")
    return Principal(found.name, found.role)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _read_tokens(path: Path) -> tuple[TokenEntry, ...]:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        parsed = _TokensFile.model_validate(document)
    except OSError as error:
        raise TokensInvalid(f"the tokens file cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TokensInvalid("the tokens file is not YAML") from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise TokensInvalid(f"the tokens file: {field}: {first['msg']}") from None
    names = [entry.name for entry in parsed.tokens]
    if len(set(names)) != len(names):
        raise TokensInvalid("the tokens file: two tokens have one name")
    return tuple(parsed.tokens)


def _write_private(path: Path, text: str) -> None:
    # mkstemp makes the file 0600 before it has content; rename is atomic beside the target.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".operator-")
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
    Path(name).replace(path)
