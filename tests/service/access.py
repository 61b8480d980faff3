"""Files of hashed secrets, and the headers of who holds them."""

import hashlib
from pathlib import Path
from typing import Any

import yaml


def hashed(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def write_tokens(path: Path, **tokens: tuple[str, str]) -> Path:
    """`name=(role, token)`"""
    return _write(
        path,
        "tokens",
        [
            {"name": name, "role": role, "sha256": hashed(token)}
            for name, (role, token) in tokens.items()
        ],
    )


def write_keys(path: Path, **keys: tuple[str, list[str]]) -> Path:
    """`name=(key, policies)`"""
    return _write(
        path,
        "keys",
        [
            {"name": name, "sha256": hashed(key), "policies": policies}
            for name, (key, policies) in keys.items()
        ],
    )


def _write(path: Path, kind: str, entries: list[dict[str, Any]]) -> Path:
    path.write_text(yaml.safe_dump({kind: entries}), encoding="utf-8")
    return path
