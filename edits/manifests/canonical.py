"""One sequence of bytes per meaning, and the digest that names it.

Canonical form: UTF-8 JSON, keys sorted by code point, no white space, every default written out,
floats as the shortest decimal that reads back as the same number. Key order, layout, and whether
the source was YAML or JSON leave no trace.
"""

import hashlib
import json

from pydantic import BaseModel


def canonical_bytes(model: BaseModel) -> bytes:
    """The canonical form of a validated model, with its defaults filled in."""
    return canonical_json(model.model_dump(mode="json", by_alias=True))


def canonical_json(value: object) -> bytes:
    """The canonical form of plain values. Raises ValueError when a number is not finite."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def digest(data: bytes) -> str:
    """`sha256:` and the hexadecimal SHA-256 of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
