"""The attacks that a run has finished, on disk after each: what a kill leaves behind.

A first line names the run; each further line is one outcome. A line that a kill cut off is dropped
when the file is opened again.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edits.errors import QuickFixError
from edits.evaluation.attacks.result import AttackOutcome

FILE_NAME = "attacks.jsonl"


class AttackJournal:
    """Outcomes by attack, appended and flushed to the disk one at a time."""

    def __init__(self, folder: Path, identity: str) -> None:
        """Open `folder`'s journal. Raises QuickFixError if it is that of another run."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE_NAME
        self.outcomes: dict[str, AttackOutcome] = {}
        kept = self._read(identity) if self.path.exists() else 0
        self._file = self.path.open("r+b" if self.path.exists() else "w+b")
        self._file.truncate(kept)
        self._file.seek(kept)
        if not kept:
            self._write({"identity": identity})

    def add(self, outcome: AttackOutcome) -> None:
        """Keep one outcome; it is on the disk when this returns."""
        self.outcomes[outcome.attack] = outcome
        self._write(outcome.document())

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
        """Fill `outcomes`; answers how many bytes of the file are whole."""
        kept = 0
        for number, line in enumerate(self.path.read_bytes().splitlines(keepends=True)):
            try:
                entry = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                entry = None
            if entry is None:
                break
            if number == 0 and entry.get("identity") != identity:
                raise QuickFixError(
                    f"{self.path.parent.name} holds attacks with other options, or on another "
                    "edit or model; choose another folder",
                    param="out",
                )
            if number:
                outcome = AttackOutcome.of(entry)
                self.outcomes[outcome.attack] = outcome
            kept += len(line)
        return kept
