"""A file that is whole, whatever ends the process or the machine: the old one, or the new one."""

import os
import secrets
from contextlib import suppress
from pathlib import Path

__all__ = ["write_durably"]


def write_durably(path: Path, data: bytes, *, private: bool = False) -> None:
    """Put a file of these bytes into the place of `path`; an error leaves no part of one.

    Both the bytes and the file's name have reached the disk on return; where only the name could
    not be brought there, the new file stands and the error is raised all the same. A `private` file
    is its user's alone (mode 0600) before it holds a byte; another has the modes that the umask
    leaves. Raises OSError.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(path)
    except BaseException:
        with suppress(OSError):
            fresh.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
