"""Finished cells in a file of JSON lines: a run that was stopped goes on where it was."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers.cells import Cell


class Journal:
    """One line for each cell, written when the cell is done.

    A cell is found again under the same options and method settings only; a line that a stopped
    run left half written is passed over.
    """

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        self._path = path
        self._options = dict(options)

    def find(self, method: str, settings: str, count: int) -> Cell | None:
        """The last cell written for these settings, or None."""
        found = None
        for line in self._path.read_text("utf-8").splitlines() if self._path.is_file() else ():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            cell = entry["cell"]
            same = entry["options"] == self._options and entry["settings"] == settings
            if same and (cell["method"], cell["count"]) == (method, count):
                found = _cell(cell)
        return found

    def add(self, cell: Cell, settings: str) -> None:
        """Append a cell."""
        entry = {"options": self._options, "settings": settings, "cell": asdict(cell)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(entry)}\n")


def _cell(entry: Mapping[str, Any]) -> Cell:
    def table(values: Mapping[str, Iterable[Any]]) -> dict[str, tuple[Any, ...]]:
        return {name: tuple(row) for name, row in values.items()}

    return Cell(
        **{
            **entry,
            "target": tuple(entry["target"]),
            "kept": table(entry["kept"]),
            "classes": table(entry["classes"]),
        }
    )
