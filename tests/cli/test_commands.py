"""The command line as an operator uses it, on a real store and the shipped model."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edits.cli import app, main
from edits.errors import GateRefused, QuickFixError, StoreUnavailable
from edits.export.artefact import read_artefact
from edits.loading import load_pipeline
from edits.manifests import catalog_entry
from edits.store import RevisionStore

ROOT = Path(__file__).resolve().parents[2]
MODEL = str(ROOT / "models" / "demo")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'quickfix.db'}"


def run(*words: str) -> dict[str, object]:
    result = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_publish_does_not_move_the_head_and_activate_does(store):
    published = run("publish", "remove-pistol", "--store", store, "--author", "ops")
    assert run("status", "--store", store)["head"] is None
    assert published["gate"]["embeddings"]["target"]["hits"] == 0
    activated = run("activate", str(published["revision"]), "--store", store)
    assert activated == {key: published[key] for key in ("revision", "digest")}
    status = run("status", "--store", store)
    assert status["head"] == published["revision"]
    assert status["edits"] == ["remove-pistol@2"]


def test_rollback_is_a_new_higher_revision_with_the_old_content(store):
    first = run("publish", "remove-pistol", "--store", store)
    run("activate", str(first["revision"]), "--store", store)
    second = run("publish", "remove-beer", "--store", store)
    run("activate", str(second["revision"]), "--store", store)
    back = run("rollback", str(first["revision"]), "--store", store)
    assert back["revision"] == 3
    assert back["digest"] == first["digest"]
    with RevisionStore.open(store) as log:
        assert [e.name for e in log.head().content.edits] == ["remove-pistol"]


def test_publish_takes_a_manifest_file(store, tmp_path):
    path = tmp_path / "edit.json"
    path.write_text(catalog_entry("remove-beer").model_dump_json(by_alias=True))
    run("activate", str(run("publish", str(path), "--store", store)["revision"]), "--store", store)
    assert run("status", "--store", store)["edits"] == ["remove-beer@1"]


def test_the_first_publish_makes_the_default_store_and_a_named_one_needs_its_folder(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run("publish", "remove-beer", "--model", MODEL)
    assert run("activate", "1")["revision"] == 1
    typo = f"sqlite:///{tmp_path / 'no-such-folder' / 'quickfix.db'}"
    assert isinstance(
        CliRunner().invoke(app, ["status", "--store", typo]).exception, StoreUnavailable
    )


def test_edit_writes_no_artefact_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "thesis.txt").write_text("ten years of work")
    words = ["edit", "remove-pistol", "--model", "./none", "--out", str(tmp_path)]
    error = CliRunner().invoke(app, words).exception
    assert isinstance(error, QuickFixError), error
    assert error.message == f"{tmp_path} is a folder; name a file"
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_edit_reports_the_fit_and_writes_the_weight(tmp_path):
    out = tmp_path / "edit.safetensors"
    report = run("edit", "remove-pistol", "--model", MODEL, "--out", str(out))
    (site,) = report["sites"]
    assert site["residual"] < 0.3
    assert site["empty_prompt_drift"] == 0.0
    assert report["settings"].keys() == {"tokens", "ridge", "preserve_weight", "pad_weight"}
    assert report["not_covered"] == []
    weights = read_artefact(out, load_pipeline(MODEL))
    assert {str(s): tuple(w.shape) for s, w in weights.items()} == {site["site"]: (128, 128)}
    assert out.stat().st_size < 128 * 1024


def test_edit_names_what_it_does_not_preserve(tmp_path):
    manifest = catalog_entry("remove-pistol").model_dump(mode="json", by_alias=True)
    manifest["spec"] |= {"preserve": ["toy pistol", "knife"]}
    path = tmp_path / "edit.json"
    path.write_text(json.dumps(manifest))
    assert run("edit", str(path), "--model", MODEL)["not_preserved"] == ["toy pistol"]
    output = CliRunner().invoke(app, ["edit", str(path), "--model", MODEL]).output
    assert "not preserved, since a removed name stands in it: toy pistol" in output


@pytest.mark.parametrize(
    ("spec", "param", "words"),
    [
        ({"method": {"ridge": 1e9}}, "spec.accept.max_target_rate", "captions read as the concept"),
        ({"concept": "cat", "aliases": [], "anchor": "kitten"}, "spec.anchor", "are one thing"),
    ],
)
def test_publish_refuses_what_does_not_pass_the_gate(store, tmp_path, spec, param, words):
    manifest = catalog_entry("remove-pistol").model_dump(mode="json", by_alias=True)
    manifest["spec"] |= spec
    path = tmp_path / "edit.json"
    path.write_text(json.dumps(manifest))
    result = CliRunner().invoke(app, ["publish", str(path), "--model", MODEL, "--store", store])
    assert isinstance(result.exception, GateRefused)
    assert result.exception.param == param
    assert words in result.exception.message
    with RevisionStore.open(store) as log:
        assert list(log.revisions()) == []


def test_evaluate_without_a_manifest_judges_the_model():
    report = run("evaluate", "--model", MODEL, "--each", "1", "--steps", "2")
    assert report["images"] == 26 + 30
    assert 0 <= report["object"]["rate"] <= 1


def test_a_refusal_is_one_line_and_exit_code_one(monkeypatch, capsys, store):
    monkeypatch.setattr("sys.argv", ["quickfix", "activate", "7", "--store", store])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "7" in error
    assert "Traceback" not in error


def test_a_manifest_that_is_neither_file_nor_catalog_names_the_catalog(monkeypatch, capsys, store):
    monkeypatch.setattr("sys.argv", ["quickfix", "publish", "remove-unicorn", "--store", store])
    with pytest.raises(SystemExit):
        main()
    assert "remove-van-gogh" in capsys.readouterr().err
