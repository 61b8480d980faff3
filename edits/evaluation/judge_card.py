"""What is known of the judge's own error: `judge.json`, written where the judge was trained."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from edits.errors import ModelLoadError
from edits.evaluation.rates import Rate

FILE_NAME = "judge.json"


@dataclass(frozen=True)
class JudgeCard:
    """Errors on pictures with known answers that neither judge nor model was trained on.

    views: for each way in which the same pictures were shown, the errors of every attribute, in all
    and by true class. command, count, seed: how they were measured.
    """

    command: str
    count: int
    seed: int
    views: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def errors(self, view: str, attribute: str) -> Rate:
        """Share of wrong answers."""
        part = self.views[view][attribute]
        return Rate(part["errors"], part["n"])

    def document(self) -> dict[str, Any]:
        """As JSON, the classes with an error only."""
        return {
            "command": self.command,
            "seed": self.seed,
            "views": {
                view: {
                    attribute: {
                        **self.errors(view, attribute).document(),
                        "classes": {
                            name: Rate(found["errors"], found["n"]).document()
                            for name, found in part["by_class"].items()
                            if found["errors"]
                        },
                    }
                    for attribute, part in attributes.items()
                }
                for view, attributes in self.views.items()
            },
        }

    @classmethod
    def read(cls, judge: Path) -> Self | None:
        """The card beside the judge's file; None if there is none.

        Raises ModelLoadError if it cannot be read, or was measured on another judge.
        """
        path = judge.with_name(FILE_NAME)
        if not path.is_file():
            return None
        try:
            card = json.loads(path.read_bytes())
            made = cls(card["command"], card["count"], card["seed"], card["views"])
            measured = card["judge"]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelLoadError(f"{FILE_NAME} of the model is no judge's card") from error
        digest = f"sha256:{hashlib.sha256(judge.read_bytes()).hexdigest()}"
        if measured != digest:
            raise ModelLoadError(
                f"{FILE_NAME} of the model was measured on another judge; "
                f"run {made.command!r} again"
            )
        return made
