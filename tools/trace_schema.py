"""Write docs/trace.schema.json, the JSON schema of a trace's `trace.json`."""

import json
from pathlib import Path

from edits.tracing.result import schema

PATH = Path(__file__).resolve().parents[1] / "docs" / "trace.schema.json"


def text() -> str:
    """The file as it should be."""
    return json.dumps(schema(), indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
