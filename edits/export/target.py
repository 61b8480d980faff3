"""Where an export goes: written beside the target under another name, then renamed to it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edits.errors import QuickFixError

_FOLDER_MARK = "model_index.json"


def check_target(target: Path, *, folder: bool, force: bool, model: str = "") -> None:
    """Raise QuickFixError unless `target` may be written, as a folder or as a file.

    What is there and not empty needs `force`. Even then a folder is only replaced if it is a
    diffusers folder, and never `model`, the one that is read.
    """
    target = target.expanduser()
    if not target.exists():
        return
    _require_kind(target, folder=folder)
    source = Path(model).expanduser()
    if model and source.exists() and source.resolve().is_relative_to(target.resolve()):
        raise _refused(target, "holds the model that is read; name another place")
    if is_empty(target):
        return
    if not force:
        raise _refused(target, "exists and is not empty; name another place, or give --force")
    if folder and not (target / _FOLDER_MARK).is_file():
        raise _refused(target, "holds other things than a diffusers folder; name another place")


def is_empty(target: Path) -> bool:
    """Whether a file has no bytes, or a folder no entries."""
    return not any(target.iterdir()) if target.is_dir() else target.stat().st_size == 0


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A free name beside `target`; what was written there becomes `target` at the end.

    After an error nothing is left of it, and `target` is as it was. Raises QuickFixError if a file
    would take a folder's place, or a folder a file's.
    """
    target = target.expanduser().resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _require_kind(target, folder=temporary.is_dir())
        if target.is_dir():
            _swap_folders(temporary, target)
        else:
            temporary.replace(target)
    finally:
        _remove(temporary)


def _require_kind(target: Path, *, folder: bool) -> None:
    if target.exists() and target.is_dir() != folder:
        kind = "a folder" if target.is_dir() else "a file"
        raise _refused(target, f"is {kind}; name {'a folder' if folder else 'a file'}")


def _swap_folders(new: Path, target: Path) -> None:
    # rename() replaces an empty folder only: the old one steps aside for a moment, and comes back
    # if the new one cannot take its place.
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    target.rename(old)
    try:
        new.rename(target)
    except OSError:
        old.rename(target)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _refused(target: Path, why: str) -> QuickFixError:
    return QuickFixError(f"{target} {why}", param="out")
