"""A wall clock that can be set for one process: libfaketime's."""

from pathlib import Path

from tools.debian import shared_library

__all__ = ["settable_clock"]

# With the monotonic clock as it is, libfaketime computes a wrong end for the absolute sleeps of
# CPython, and every `time.sleep` of the process fails with EINVAL. Waiting in `select` is right.
_SLEEP = """import select, time
time.sleep = lambda seconds: select.select((), (), (), seconds) and None
"""


def settable_clock(folder: Path) -> tuple[Path, dict[str, str]]:
    """The file that holds the step of the clock (`+3600s`), and the variables of its process.

    Raises NotToBeHad.
    """
    library = shared_library("libfaketime", "libfaketimeMT.so.1")
    site = folder / "site"
    site.mkdir(parents=True)
    (site / "sitecustomize.py").write_text(_SLEEP, encoding="utf-8")
    file = folder / "clock"
    file.write_text("+0s")
    return file, {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "DONT_FAKE_MONOTONIC": "1",  # a clock that is set does not move the monotonic one
        "PYTHONPATH": str(site),
    }
