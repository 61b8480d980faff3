"""A directory of manifests as one set: a git checkout, or a ConfigMap as the kubelet mounts it."""

import stat
from pathlib import Path

from edits.errors import ManifestInvalid
from edits.manifests.parse import load_manifest
from edits.manifests.schema import ConceptEdit

_SUFFIXES = {".yaml", ".yml", ".json"}
_ATTEMPTS = 3


def load_directory(path: Path | str) -> tuple[ConceptEdit, ...]:
    """Every manifest directly inside `path`, sorted by name; other files are ignored.

    Raises ManifestInvalid when a file is no manifest, when two files carry the same edit name, or
    when the directory cannot be read. It is all or nothing: one bad file and no edit is returned.
    """
    directory = Path(path)
    reason = "it changes while it is being read"
    for _ in range(_ATTEMPTS):
        try:
            root = _root(directory)
            edits = _read(root)
            # A swapped volume is being deleted: what was listed there may have been the rest of it.
            if _root(directory) == root:
                return edits
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


def _read(root: Path) -> tuple[ConceptEdit, ...]:
    found: dict[str, tuple[ConceptEdit, str]] = {}
    for file in sorted(root.iterdir()):
        if file.name.startswith(".") or file.suffix not in _SUFFIXES:
            continue
        # Not `is_file`, which calls a vanished file no file: its edit would be left out in silence.
        if not stat.S_ISREG(file.stat().st_mode):
            continue
        edit = load_manifest(file)
        if edit.name in found:
            raise ManifestInvalid(
                f"{file.name}: the edit {edit.name!r} stands in {found[edit.name][1]} already; "
                "rename one of them",
                param="metadata.name",
            )
        found[edit.name] = (edit, file.name)
    return tuple(found[name][0] for name in sorted(found))
