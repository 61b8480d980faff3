"""API keys of the public routes: who may draw, and under which policies.

They are no admin tokens: a key opens no admin route, and a token draws nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, field_validator

from edits.manifests import DEFAULT_POLICY
from service.api.hashed_file import HashedEntry, HashedFile, StrictFields, bearer
from service.errors import ApiKeysInvalid, PolicyForbidden

__all__ = ["ApiKey", "FileApiKeys", "identify", "policy_of"]

_Policy = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]


@dataclass(frozen=True, slots=True)
class ApiKey:
    """Who asks for images: the key's name, never its text, and the policies that it may use."""

    name: str
    policies: tuple[str, ...]  # the first one is what a request without a policy runs under


class KeyEntry(HashedEntry):
    """One key and its policies."""

    policies: Annotated[list[_Policy], Field(min_length=1, max_length=100)]

    @field_validator("policies")
    @classmethod
    def _each_once(cls, policies: list[str]) -> list[str]:
        if len(set(policies)) != len(policies):
            raise ValueError("a policy stands twice")
        return policies


class _KeysFile(StrictFields):
    # May be empty, unlike the tokens: to lock everybody out must not need a made-up key.
    keys: Annotated[list[KeyEntry], Field(max_length=10_000)]


class FileApiKeys(HashedFile[KeyEntry]):
    """The keys of a file. Raises ApiKeysInvalid when it is bad at start."""

    title = "API keys file"
    refusal = ApiKeysInvalid

    def _parse(self, document: object) -> Sequence[KeyEntry]:
        return _KeysFile.model_validate(document).keys


def identify(keys: FileApiKeys, authorization: str | None) -> ApiKey:
    """The key of an `Authorization` header. Raises Unauthenticated."""
    entry = bearer(keys.entries(), authorization, secret="API key")  # noqa: S106 - a word
    return ApiKey(entry.name, tuple(entry.policies))


def policy_of(key: ApiKey | None, asked: str | None) -> str:
    """The policy of a request: what it asks for within what its key allows.

    No key means that this service asks for none: then every policy is allowed, and the revision
    decides. Raises PolicyForbidden.
    """
    if key is None:
        return asked or DEFAULT_POLICY
    if asked is None:
        return key.policies[0]
    if asked not in key.policies:
        raise PolicyForbidden(
            f"API key {key.name!r} does not allow policy {asked!r}; "
            f"it allows: {', '.join(key.policies)}",
            param="policy",
        )
    return asked
