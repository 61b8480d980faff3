"""The scores that a running trace has, on disk after every batch: what a kill leaves behind."""

from collections.abc import Sequence
from pathlib import Path

from edits.errors import TraceConflict
from edits.journal import LineJournal

FILE_NAME = "trace.journal"


class Journal(LineJournal):
    """Scores by batch number, appended and flushed to the disk one batch at a time."""

    def __init__(self, folder: Path, identity: str) -> None:
        """Open `folder`'s journal. Raises TraceConflict if it is that of another trace."""

        def refusal() -> TraceConflict:
            return TraceConflict(
                f"{folder.name} holds an unfinished trace with other options, prompts or model; "
                "finish that one, or choose another --out",
                param="out",
            )

        super().__init__(folder / FILE_NAME, {"trace": identity}, refusal=refusal)
        self.scores: dict[int, list[list[float]]] = {e["batch"]: e["scores"] for e in self.entries}
        self.seconds: dict[int, float] = {e["batch"]: e["seconds"] for e in self.entries}

    def add(self, number: int, scores: Sequence[Sequence[float]], seconds: float) -> None:
        """Keep one batch's scores (tasks, scorers); they are on the disk when this returns."""
        self.scores[number] = [list(row) for row in scores]
        self.seconds[number] = seconds
        self.append({"batch": number, "seconds": seconds, "scores": self.scores[number]})

    def remove(self) -> None:
        """Close and delete: the result holds everything now."""
        self.close()
        self.path.unlink(missing_ok=True)
