"""A directory of manifests as one set: a git checkout, or a ConfigMap as the kubelet mounts it."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edits.errors import ManifestInvalid
from edits.manifests.parse import load_file
from edits.manifests.schema import ConceptEdit

_SUFFIXES = {".yaml", ".yml", ".json"}
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class ManifestSet:
    """What a directory wants: its edits, sorted by name, and the policies that its files define."""

    edits: tuple[ConceptEdit, ...] = ()
    policies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def load_directory(path: Path | str) -> ManifestSet:
    """Every manifest and file of policies directly inside `path`; other files are ignored.

    Raises ManifestInvalid when a file is neither, when two files carry the same edit or policy
    name, or when the directory cannot be read. It is all or nothing: one bad file and nothing is
    returned.
    """
    directory = Path(path)
    reason = "it changes while it is being read"
    for _ in range(_ATTEMPTS):
        try:
            root = _root(directory)
            found = _read(root)
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
