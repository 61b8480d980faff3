"""The scores that a running trace has, on disk after every batch: what a kill leaves behind.

One JSON line per batch behind a first line that names the trace. A line that was cut off by a kill
is dropped when the file is opened again.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edits.errors import TraceConflict

FILE_NAME = "trace.journal"


class Journal:
    """Scores by batch number, appended and flushed to the disk one batch at a time."""

    def __init__(self, folder: Path, identity: str) -> None:
        """Open `folder`'s journal. Raises TraceConflict if it is that of another trace."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE_NAME
        self.scores: dict[int, list[list[float]]] = {}
        self.seconds: dict[int, float] = {}
        kept = 0
        if self.path.exists():
            kept = self._read(identity)
        self._file = self.path.open("r+b" if self.path.exists() else "w+b")
        self._file.truncate(kept)
        self._file.seek(kept)
        if not kept:
            self._write({"trace": identity})

    def add(self, number: int, scores: Sequence[Sequence[float]], seconds: float) -> None:
        """Keep one batch's scores (tasks, scorers); they are on the disk when this returns."""
        self.scores[number] = [list(row) for row in scores]
        self.seconds[number] = seconds
        self._write({"batch": number, "seconds": seconds, "scores": self.scores[number]})

    def remove(self) -> None:
        """Close and delete: the result holds everything now."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, identity: str) -> int:
        """Fill `scores`; answers how many bytes of the file are whole."""
        kept = 0
        for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True)):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                entry = None
            if entry is None:
                break
            if number == 0 and entry.get("trace") != identity:
                raise TraceConflict(
                    f"{self.path.parent.name} holds an unfinished trace with other options, "
                    "prompts or model; finish that one, or choose another --out",
                    param="out",
                )
            if number:
                self.scores[entry["batch"]] = entry["scores"]
                self.seconds[entry["batch"]] = entry["seconds"]
            kept += len(line)
        return kept
