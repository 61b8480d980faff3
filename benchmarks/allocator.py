"""The allocator of a whole measurement: all sides of a ratio share it."""

import os
import sys
from enum import StrEnum

from service.allocator import allocator
from tools.debian import NotToBeHad, shared_library

__all__ = ["Allocator", "use"]


class Allocator(StrEnum):
    """What a command and all that it starts run on."""

    jemalloc = "jemalloc"  # as in the image
    system = "system"  # this machine's, as the command was started


def use(wanted: Allocator) -> None:
    """Start this command again with Debian's jemalloc preloaded where it is wanted and not there.

    It is fetched, and nothing is installed. Where it cannot be, the command ends with the reason.
    """
    if wanted is Allocator.system or allocator() == "jemalloc":
        return
    try:
        library = shared_library("libjemalloc2", "libjemalloc.so.2")
    except NotToBeHad as error:
        raise SystemExit(f"{error}; `--allocator system` measures without it") from error
    os.environ["LD_PRELOAD"] = os.fspath(library)
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - our own command
