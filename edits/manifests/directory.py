"""A directory of manifests as one set: a git checkout, or a ConfigMap as the kubelet mounts it."""

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from edits.errors import ManifestInvalid
from edits.manifests.parse import load_file, shown
from edits.manifests.schema import ConceptEdit

_SUFFIXES = {".yaml", ".yml", ".json"}
_ATTEMPTS = 3
_SIGNED = {"revision.json": 16 * 1024 * 1024, "revision.dsse.json": 64 * 1024}  # bytes at most
_LARGEST = max(_SIGNED.values())

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


def manifest_files(root: Path) -> list[Path]:
    """The regular files with a manifest's suffix directly inside, sorted; hidden ones are left out.

    A pipe or a device would block whoever reads it, or never end. Raises OSError.
    """
    return [
        file
        for file in sorted(root.iterdir())
        # Not `is_file`, which calls a vanished file no file: its edit would be left out in silence.
        if file.suffix in _SUFFIXES
        and not file.name.startswith(".")
        and stat.S_ISREG(file.stat().st_mode)
    ]


def directory_digest(path: Path | str) -> str:
    """Digest of where the directory's links lead, and of its manifests' names and bytes.

    Of a file only as much is read as could be accepted. Raises OSError when the directory is gone
    or a file vanishes while it is read.
    """
    root = _root(Path(path)).resolve(strict=True)
    digest = hashlib.sha256(os.fsencode(root))
    for file in manifest_files(root):
        with file.open("rb") as stream:
            body = stream.read(_LARGEST + 1)
        digest.update(b"\0%b\0%d\0" % (os.fsencode(file.name), len(body)))
        digest.update(body)
    return digest.hexdigest()


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
    others = [shown(file) for file in manifest_files(root) if file.name not in _SIGNED]
    if others:
        raise ManifestInvalid(
            f"{others[0]} stands beside a signed set, and is no part of what was signed; "
            f"keep only {' and '.join(_SIGNED)}"
        )
    read = []
    for name, limit in _SIGNED.items():
        try:
            if not stat.S_ISREG((root / name).stat().st_mode):
                raise ManifestInvalid(f"{name} is no regular file; only those are read")
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
    for file in manifest_files(root):
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
            f"{shown(file)}: the {kind} {name!r:.80} stands in {origin[kind, name]} already; "
            "rename one of them",
            param="metadata.name" if kind == "edit" else "policies",
        )
    origin[kind, name] = shown(file)
