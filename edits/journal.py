"""JSON lines that long work leaves on the disk as it goes: what a kill leaves behind is whole.

A first line names the work. A line that a kill cut off is dropped when the file is opened again.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class LineJournal:
    """An append-only file of JSON objects; each is on the disk when `append` returns.

    `entries` are those that an earlier run left.
    """

    def __init__(
        self, path: Path, header: Mapping[str, Any], *, refusal: Callable[[], Exception]
    ) -> None:
        """Open or make `path`. Raises what `refusal` answers if the file has another header."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.entries: list[dict[str, Any]] = []
        kept = self._read(header, refusal) if path.exists() else 0
        self._file = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(kept)
        self._file.seek(kept)
        if not kept:
            self.append(header)

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one line and wait until it is on the disk."""
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; what was appended stays."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def _read(self, header: Mapping[str, Any], refusal: Callable[[], Exception]) -> int:
        """Fill `entries`; answers how many bytes of the file are whole."""
        kept = 0
        for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True)):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                entry = None
            if entry is None:
                break
            if number == 0 and entry != dict(header):
                raise refusal()
            if number:
                self.entries.append(entry)
            kept += len(line)
        return kept
