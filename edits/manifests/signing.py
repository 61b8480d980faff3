"""Signing a revision's statement: ed25519 keys in files, and signatures added one after another.

A key's id is the SHA-256 that securesystemslib computes over the public key as TUF writes keys; it
is computed wherever it is needed and never read from a file.
"""

import base64
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner

from edits.errors import SigningKeyInvalid
from edits.manifests.envelope import read_envelope, write_envelope
from edits.manifests.statement import PAYLOAD_TYPE, RevisionStatement

_MAX_KEY_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private ed25519 key; it is neither printed nor part of its repr."""

    private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> "SigningKey":
        """A new key from the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate())

    @property
    def key_id(self) -> str:
        """64 hexadecimal digits that name the key pair."""
        return str(self.signer().public_key.keyid)

    @property
    def public(self) -> str:
        """The public key for a trusted keys file: its 32 bytes in base64."""
        raw = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def public_pem(self) -> bytes:
        """The public key as PEM."""
        return self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )

    def private_pem(self, passphrase: str | None = None) -> bytes:
        """The private key as PEM (PKCS 8), encrypted when there is a passphrase."""
        encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
        return self.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def signer(self) -> CryptoSigner:
        """What securesystemslib signs with."""
        return CryptoSigner(self.private)


def read_signing_key(path: Path, passphrase: Callable[[], str] | None = None) -> SigningKey:
    """The private key in a PEM file; `passphrase` is asked only when the file is encrypted.

    Raises SigningKeyInvalid.
    """
    try:
        with path.open("rb") as stream:
            pem = stream.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise SigningKeyInvalid(f"the key {path} cannot be read: {error.strerror}") from None
    encrypted = b"ENCRYPTED" in pem
    if encrypted and passphrase is None:
        raise SigningKeyInvalid(f"the key {path} is encrypted; give its passphrase")
    secret = passphrase().encode() if encrypted and passphrase else None
    try:
        private = load_pem_private_key(pem, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        why = "the passphrase is wrong" if encrypted else "it holds no private key in PEM"
        raise SigningKeyInvalid(f"the key {path} cannot be read: {why}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise SigningKeyInvalid(f"the key {path} is not ed25519; make one with `quickfix keygen`")
    return SigningKey(private)


def write_signing_key(
    key: SigningKey, path: Path, *, passphrase: str | None = None, force: bool = False
) -> None:
    """Write the private key for its own user only (mode 0600).

    A file that is there stays, unless forced. Raises SigningKeyInvalid.
    """
    # O_EXCL and not a check: no file that someone makes meanwhile is lost or written through.
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp") if force else path
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(key.private_pem(passphrase))
                stream.flush()
                os.fsync(stream.fileno())
            fresh.replace(path)
        except BaseException:
            fresh.unlink()
            raise
    except FileExistsError:
        raise SigningKeyInvalid(
            f"{fresh} exists; a lost key cannot be made again: name another file, or give --force",
            param="out",
        ) from None
    except OSError as error:
        raise SigningKeyInvalid(
            f"the key {path} cannot be written: {error.strerror}", param="out"
        ) from None


def sign(statement: RevisionStatement, keys: Iterable[SigningKey]) -> bytes:
    """A new envelope of the statement with one signature of each key."""
    envelope = Envelope(statement.canonical_bytes(), PAYLOAD_TYPE, {})
    for key in keys:
        envelope.sign(key.signer())
    return write_envelope(envelope)


def add_signature(data: bytes, key: SigningKey) -> bytes:
    """The envelope with a signature of `key` beside those that it has.

    A key that has signed already changes nothing: ed25519 signs the same bytes the same way.
    Raises EnvelopeInvalid, and StatementInvalid for an envelope that no one should sign.
    """
    envelope = read_envelope(data)
    RevisionStatement.from_bytes(envelope.payload)
    envelope.sign(key.signer())
    return write_envelope(envelope)
