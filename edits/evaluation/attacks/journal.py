"""The attacks that a run has finished, on disk after each: what a kill leaves behind."""

from pathlib import Path

from edits.errors import QuickFixError
from edits.evaluation.attacks.result import AttackOutcome
from edits.journal import LineJournal

FILE_NAME = "attacks.jsonl"


class AttackJournal(LineJournal):
    """Outcomes by attack, appended and flushed to the disk one at a time."""

    def __init__(self, folder: Path, identity: str) -> None:
        """Open `folder`'s journal. Raises QuickFixError if it is that of another run."""

        def refusal() -> QuickFixError:
            return QuickFixError(
                f"{folder.name} holds attacks with other options, or on another edit or model; "
                "choose another folder",
                param="out",
            )

        super().__init__(folder / FILE_NAME, {"identity": identity}, refusal=refusal)
        outcomes = [AttackOutcome.of(entry) for entry in self.entries]
        self.outcomes = {outcome.attack: outcome for outcome in outcomes}

    def add(self, outcome: AttackOutcome) -> None:
        """Keep one outcome; it is on the disk when this returns."""
        self.outcomes[outcome.attack] = outcome
        self.append(outcome.document())
