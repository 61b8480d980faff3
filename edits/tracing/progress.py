"""How far a trace is, as any process can read it from the trace's folder while it runs."""

import json
from dataclasses import dataclass
from pathlib import Path

from edits.tracing.journal import FILE_NAME as JOURNAL_NAME

FILE_NAME = "plan.json"


@dataclass(frozen=True)
class Progress:
    """Pictures that are done and that there will be; None: not known yet."""

    done: int | None
    total: int | None


def write_plan(folder: Path, pictures: int) -> None:
    """Say how many pictures the trace in `folder` has."""
    (folder / FILE_NAME).write_text(json.dumps({"pictures": pictures}) + "\n", encoding="utf-8")


def remove_plan(folder: Path) -> None:
    """Delete what `write_plan` wrote."""
    (folder / FILE_NAME).unlink(missing_ok=True)


def read_progress(folder: Path) -> Progress:
    """Progress of the trace in `folder`; what is missing or half written counts as not known."""
    try:
        total = int(json.loads((folder / FILE_NAME).read_bytes())["pictures"])
    except (OSError, ValueError, KeyError, TypeError):
        total = None
    try:
        lines = (folder / JOURNAL_NAME).read_bytes().splitlines()
    except OSError:
        return Progress(None, total)
    done: dict[int, int] = {}
    for line in lines[1:]:  # the first one names the trace
        try:
            entry = json.loads(line)
            done[entry["batch"]] = len(entry["scores"])
        except (ValueError, KeyError, TypeError):
            break
    return Progress(sum(done.values()), total)
