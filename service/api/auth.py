"""Bearer tokens of the admin routes: hashed at rest, compared in constant time, rotated live."""

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field

from edits.durable_file import write_durably
from service.api.hashed_file import HashedEntry, HashedFile, StrictFields, bearer, sha256_of
from service.errors import Forbidden, TokensInvalid

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


class TokenEntry(HashedEntry):
    """One token and what it may do."""

    role: Role


class _TokensFile(StrictFields):
    tokens: Annotated[list[TokenEntry], Field(min_length=1, max_length=1000)]


class Tokens(Protocol):
    """Where the known tokens come from."""

    def entries(self) -> tuple[TokenEntry, ...]:
        """The tokens that are good now."""
        ...


class FileTokens(HashedFile[TokenEntry]):
    """The tokens of a file. Raises TokensInvalid when it is bad at start."""

    title = "tokens file"
    refusal = TokensInvalid

    def _parse(self, document: object) -> Sequence[TokenEntry]:
        return _TokensFile.model_validate(document).tokens


class GeneratedToken:
    """One operator token made at start and written to `operator.token` in the state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "operator.token"
        token = secrets.token_urlsafe(32)
        write_durably(self.path, f"{token}\n".encode(), private=True)
        self._entry = TokenEntry(name="generated", role="operator", sha256=sha256_of(token))
        _log.warning("no tokens file is set: one operator token was written to %s", self.path)

    def entries(self) -> tuple[TokenEntry, ...]:
        """The one generated token."""
        return (self._entry,)


def authenticate(tokens: Tokens, authorization: str | None) -> Principal:
    """The principal of an `Authorization` header. Raises Unauthenticated."""
    entry = bearer(tokens.entries(), authorization, secret="token")  # noqa: S106 - a word
    return Principal(entry.name, entry.role)
