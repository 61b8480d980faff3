"""A Debian package's files, fetched and unpacked into a cache: no root, nothing installed."""

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

__all__ = ["NotToBeHad", "shared_library", "unpacked"]

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quickfix" / "debian"


class NotToBeHad(RuntimeError):
    """The package can neither be found nor fetched; the message says why."""


def unpacked(package: str) -> Path:
    """The root of a Debian package's files, fetched and unpacked once. Raises NotToBeHad."""
    folder = CACHE / package
    if folder.is_dir():
        return folder
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise NotToBeHad(f"this machine has neither {package} nor apt to fetch it with")
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        said = _fetch(package, Path(scratch))
        files = list(Path(scratch).glob("*.deb"))
        if len(files) != 1:
            raise NotToBeHad(f"apt-get download {package} failed: {said}")
        subprocess.run(["dpkg-deb", "-x", str(files[0]), f"{scratch}/root"], check=True)  # noqa: S603, S607
        with suppress(OSError):  # another test process was first
            Path(scratch, "root").rename(folder)
    return folder


def shared_library(package: str, name: str) -> Path:
    """A library of a package, fetched like it. Raises NotToBeHad."""
    (path,) = unpacked(package).rglob(name)
    return path


def _fetch(package: str, scratch: Path) -> str:
    """Download with the machine's package lists, or with lists of our own where it has none."""
    (scratch / "lists" / "partial").mkdir(parents=True)
    (scratch / "cache" / "archives" / "partial").mkdir(parents=True)
    own = [f"-oDir::State::lists={scratch / 'lists'}", f"-oDir::Cache={scratch / 'cache'}"]
    said = ""
    for command in (
        [["apt-get", "download", package]],
        [["apt-get", *own, "update"], ["apt-get", *own, "download", package]],
    ):
        for step in command:
            done = subprocess.run(  # noqa: S603 - our own command
                step, cwd=scratch, capture_output=True, text=True, timeout=300, check=False
            )
            said = done.stderr.strip()[-300:]
        if list(scratch.glob("*.deb")):
            break
    return said
