"""Who may sign: a YAML file of public keys and a threshold, read again when it changes."""

import base64
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from securesystemslib.signer import SSlibKey

from edits.errors import ManifestInvalid, TrustedKeysInvalid
from edits.manifests.document import MAX_BYTES, dotted, read_values
from edits.manifests.envelope import MAX_SIGNATURES
from edits.manifests.statement import parse_moment

_MAX_KEY_TEXT = 1024  # characters; PEM of ed25519 has 113
_WHAT = "the trusted keys file"


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """One signer. From `not_after` on its signatures count no more, whenever they were made."""

    name: str
    public: SSlibKey
    not_after: datetime | None = None

    @property
    def key_id(self) -> str:
        """What envelopes call the key; computed from it."""
        return str(self.public.keyid)

    def is_good(self, now: datetime) -> bool:
        """Whether its signatures count at that moment."""
        return self.not_after is None or now < self.not_after


@dataclass(frozen=True, slots=True)
class TrustedKeys:
    """The signers and how many different ones of them a statement needs."""

    threshold: int
    keys: tuple[TrustedKey, ...]

    @classmethod
    def parse(cls, data: bytes) -> "TrustedKeys":
        """The keys in a YAML or JSON body.

        Raises TrustedKeysInvalid when it breaks the schema, when a name or a key stands twice, or
        when the threshold is more than the keys.
        """
        parsed = _parse(data)
        keys = tuple(TrustedKey(each.name, each.public, each.not_after) for each in parsed.keys)
        if parsed.threshold > len(keys):
            raise TrustedKeysInvalid(
                f"{_WHAT}: threshold: {parsed.threshold} signatures cannot come from {len(keys)} "
                "keys; lower it or add keys",
                param="threshold",
            )
        _refuse_repeats("have the name", [key.name for key in keys])
        # One signer under two names would reach a threshold of two alone.
        _refuse_repeats("are the key", [key.key_id for key in keys])
        return cls(parsed.threshold, keys)

    @classmethod
    def read(cls, path: Path) -> "TrustedKeys":
        """The keys in a file. Raises TrustedKeysInvalid."""
        return cls.parse(_read(path))


class LiveTrustedKeys:
    """The trusted keys file, read again when it changes; a bad file leaves the last good keys.

    Thread-safe. A ConfigMap mount renames a symlink, which changes what the path leads to.
    """

    def __init__(self, path: Path) -> None:
        """Raises TrustedKeysInvalid when the file cannot be read or breaks its schema."""
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = _stamp(path)
        self._keys = TrustedKeys.read(path)
        self._last_error: TrustedKeysInvalid | None = None

    @property
    def last_error(self) -> TrustedKeysInvalid | None:
        """Why the file did not count when `current` looked at it last; None when it did."""
        return self._last_error

    def current(self) -> TrustedKeys:
        """The keys of the file as it is now, or else the last good ones."""
        with self._lock:
            try:
                stamp = _stamp(self._path)
                if stamp == self._seen:
                    return self._keys
                data = _read(self._path)
            except TrustedKeysInvalid as error:
                # Looked at again even if the same file comes back.
                self._seen, self._last_error = None, error
                return self._keys
            self._seen = stamp
            try:
                self._keys, self._last_error = TrustedKeys.parse(data), None
            except TrustedKeysInvalid as error:
                self._last_error = error
            return self._keys


def _public_key(value: object) -> SSlibKey:
    """An ed25519 public key from PEM, or from base64 of its 32 bytes."""
    if not isinstance(value, str) or len(value) > _MAX_KEY_TEXT:
        raise ValueError("must be text: PEM, or base64 of 32 bytes")
    if "PRIVATE KEY" in value:
        raise ValueError("is a private key; put the public one here, and replace the pair")
    try:
        if value.lstrip().startswith("-----BEGIN"):
            key = load_pem_public_key(value.encode())
        else:
            raw = base64.b64decode("".join(value.split()), validate=True)
            key = Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is neither a public key in PEM nor base64 of 32 bytes") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("is not an ed25519 key; make one with `quickfix keygen`")
    return SSlibKey.from_crypto(key)


def _not_after(value: object) -> datetime | None:
    return None if value is None else parse_moment(value)


class _Entry(BaseModel):
    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, arbitrary_types_allowed=True
    )

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,63}$")]
    public: Annotated[SSlibKey, BeforeValidator(_public_key)]
    not_after: Annotated[datetime | None, BeforeValidator(_not_after)] = None


class _File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    threshold: Annotated[int, Field(ge=1)]
    keys: Annotated[list[_Entry], Field(min_length=1, max_length=MAX_SIGNATURES)]


def _parse(data: bytes) -> _File:
    if len(data) > MAX_BYTES:
        raise TrustedKeysInvalid(f"{_WHAT} has more than {MAX_BYTES} bytes; keep only its keys")
    try:
        values = read_values(data) if data.strip() else None
        if not isinstance(values, dict):
            raise TrustedKeysInvalid(f"{_WHAT} is not a mapping with the fields threshold and keys")
        return _File.model_validate(values)
    except ManifestInvalid as error:
        raise TrustedKeysInvalid(f"{_WHAT}: {error.message}", param=error.param) from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        field = dotted(first["loc"])
        why = first.get("ctx", {}).get("error", first["msg"])
        raise TrustedKeysInvalid(f"{_WHAT}: {field}: {why}", param=field) from None


def _refuse_repeats(what: str, values: list[str]) -> None:
    if repeated := next((each for each in values if values.count(each) > 1), None):
        raise TrustedKeysInvalid(
            f"{_WHAT}: two entries {what} {repeated}; keep one of them", param="keys"
        )


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(error) from None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)  # one more than `read_values` takes
    except OSError as error:
        raise _unreadable(error) from None


def _unreadable(error: OSError) -> TrustedKeysInvalid:
    return TrustedKeysInvalid(
        f"{_WHAT} cannot be read: {error.strerror}; check that it is mounted and readable"
    )
