"""`quickfix evaluate` on the shipped model, with few pictures and steps."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edits.cli import app
from edits.errors import QuickFixError

MODEL = str(Path(__file__).resolve().parents[2] / "models" / "demo")
FEW = ("--model", MODEL, "--targets", "4", "--each", "1", "--steps", "2")


def invoke(*words):
    return CliRunner().invoke(app, ["evaluate", *words, *FEW])


def test_a_set_of_edits_is_evaluated_together_and_reported(tmp_path):
    out = tmp_path / "report"
    done = invoke(
        "remove-pistol", "remove-van-gogh", "--groups", "name,depicted", "--out", str(out), "--json"
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert [edit["name"] for edit in document["edits"]] == ["remove-pistol", "remove-van-gogh"]
    assert [(t["edit"], t["n"]) for t in document["targets"]] == [
        ("remove-pistol", 4), ("remove-van-gogh", 4)
    ]  # fmt: skip
    assert document["retained"][0]["group"] == "depicted"
    assert document["steps"] == 2
    assert document["empty_prompt"]["max_abs"] == 0
    assert document["clip_score"]["target, anchor's caption"]["difference"]["n"] == 8
    assert "dog" not in document["edits"][1]["neighbours"]
    assert len(document["edits"][1]["neighbours"]) == 5
    command = document["provenance"]["command"]
    assert command.startswith("quickfix evaluate remove-pistol remove-van-gogh ")
    assert "--groups name,depicted --seed 7000 --steps 2" in command
    assert json.loads((out / "report.json").read_text()) == document
    assert {path.name for path in out.iterdir()} == {"report.json", "report.md", "report.html"}


def test_an_unknown_group_is_refused_before_anything_is_drawn():
    with pytest.raises(QuickFixError, match="no group 'names'"):
        raise invoke("remove-pistol", "--groups", "names").exception


def test_a_report_of_no_edit_is_refused(tmp_path):
    with pytest.raises(QuickFixError, match="need an edit"):
        raise invoke("--out", str(tmp_path)).exception
