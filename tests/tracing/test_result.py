"""The result's files: the schema that is documented, and files that do not belong together."""

import json
from pathlib import Path

import pytest

from edits.errors import TraceConflict
from edits.tracing.result import ARRAYS_NAME, FILE_NAME, read_result, schema

from .test_trace import trace

SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "trace.schema.json"


def test_the_documented_schema_is_that_of_the_code():
    """`python -m tools.trace_schema` writes it."""
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == schema()


@pytest.fixture(scope="module")
def folder(traced_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("result")
    trace("--model", traced_model, "--seeds", 1, "--attribute", "style", "--out", out)
    return out


def test_arrays_of_another_trace_are_refused(folder):
    path = folder / ARRAYS_NAME
    before = path.read_bytes()
    path.write_bytes(before[:-8] + b"\0" * 8)
    with pytest.raises(TraceConflict, match="not the one"):
        read_result(folder)
    path.write_bytes(before)
    assert read_result(folder)[0].options.seeds == 1


def test_a_document_that_breaks_the_schema_is_refused(folder, tmp_path):
    document = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    (tmp_path / FILE_NAME).write_text(json.dumps(document | {"extra": 1}), encoding="utf-8")
    with pytest.raises(TraceConflict, match="no readable trace"):
        read_result(tmp_path)
