"""A directory of manifests as one set: a git checkout, or a ConfigMap as the kubelet mounts it."""

import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from edits.errors import ManifestInvalid
from edits.manifests.parse import load_file
from edits.manifests.schema import ConceptEdit

_SUFFIXES = {".yaml", ".yml", ".json"}
_ATTEMPTS = 3
_SIGNED = {"revision.json": 16 * 1024 * 1024, "revision.dsse.json": 64 * 1024}  # bytes at most

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class ManifestSet:
    """What a directory wants: its edits, sorted by name, and the policies that its files define."""

    edits: tuple[ConceptEdit, ...] = ()
    policies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SignedFiles:
    """The bytes of a signed set in a directory; nothing of them is verified."""

    content: bytes
    envelope: bytes


def load_signed_set(path: Path | str) -> SignedFiles:
    """The signed set in `path`: the files revision.json and revision.dsse.json, and nothing else.

    Raises ManifestInvalid when one of them is missing or too large, when there is a manifest beside
    them, which would not be what was signed, or when the directory cannot be read.
    """
    return _settled(Path(path), _read_signed)


def load_directory(path: Path | str) -> ManifestSet:
    """Every manifest and file of policies directly inside `path`; other files are ignored.

    Raises ManifestInvalid when a file is neither, when two files carry the same edit or policy
    name, or when the directory cannot be read. It is all or nothing: one bad file and nothing is
    returned.
    """
    return _settled(Path(path), _read)


def _settled(directory: Path, read: Callable[[Path], Found]) -> Found:
    """What `read` finds in one version of the directory. Raises ManifestInvalid."""
    reason = "it changes while it is being read"
    for _ in range(_ATTEMPTS):
        try:
            root = _root(directory)
            found = read(root)
            # A swapped volume is being deleted: what was listed there may have been the rest of it.
            if _root(directory) == root:
                return found
        except FileNotFoundError as error:
            reason = str(error.strerror)
        except OSError as error:
            reason = str(error.strerror)
            break
    raise ManifestInvalid(
        f"the manifest directory {str(directory)!r} cannot be read: {reason}; "
        "check that it is mounted and readable"
    )


def _root(directory: Path) -> Path:
    """Where the files are: a ConfigMap volume is replaced by renaming its symlink `..data`.

    Resolved once, all files come from one version of it, whatever happens meanwhile.
    """
    data = directory / "..data"
    return data.resolve(strict=True) if data.is_symlink() else directory


def _read_signed(root: Path) -> SignedFiles:
    others = sorted(
        file.name
        for file in root.iterdir()
        if file.suffix in _SUFFIXES and not file.name.startswith(".") and file.name not in _SIGNED
    )
    if others:
        raise ManifestInvalid(
            f"{others[0]} stands beside a signed set, and is no part of what was signed; "
            f"keep only {' and '.join(_SIGNED)}"
        )
    read = []
    for name, limit in _SIGNED.items():
        try:
            with (root / name).open("rb") as stream:
                data = stream.read(limit + 1)
        except FileNotFoundError:
            raise ManifestInvalid(
                f"the directory has no {name}, and only signed sets run here; "
                "write both files with `quickfix compose` and `quickfix sign`"
            ) from None
        if len(data) > limit:
            raise ManifestInvalid(f"{name} has more than {limit} bytes")
        read.append(data)
    return SignedFiles(*read)


def _read(root: Path) -> ManifestSet:
    edits: dict[str, ConceptEdit] = {}
    policies: dict[str, tuple[str, ...]] = {}
    origin: dict[tuple[str, str], str] = {}  # kind and name -> file
    for file in sorted(root.iterdir()):
        if file.name.startswith(".") or file.suffix not in _SUFFIXES:
            continue
        # Not `is_file`, which calls a vanished file no file: its edit would be left out in silence.
        if not stat.S_ISREG(file.stat().st_mode):
            continue
        loaded = load_file(file)
        if isinstance(loaded, ConceptEdit):
            _claim(origin, "edit", loaded.name, file)
            edits[loaded.name] = loaded
            continue
        for name in loaded:
            _claim(origin, "policy", name, file)
        policies |= loaded
    return ManifestSet(tuple(edits[name] for name in sorted(edits)), policies)


def _claim(origin: dict[tuple[str, str], str], kind: str, name: str, file: Path) -> None:
    """Raise ManifestInvalid when another file has that name already."""
    if (kind, name) in origin:
        raise ManifestInvalid(
            f"{file.name}: the {kind} {name!r:.80} stands in {origin[kind, name]} already; "
            "rename one of them",
            param="metadata.name" if kind == "edit" else "policies",
        )
    origin[kind, name] = file.name
