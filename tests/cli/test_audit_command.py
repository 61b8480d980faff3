"""`quickfix audit`: the log as an operator reads it, and the proof of it."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edits.cli import app, main
from edits.errors import QuickFixError, StoreUnavailable
from edits.store import AuditEvent, RevisionStore

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "quickfix.db"
    with RevisionStore.open(f"sqlite:///{file}") as log:
        for number in range(1, 4):
            log.record(AuditEvent("ana", "operator", "publish_edit", f"edit-{number}", "ok"))
    return file


def invoke(*words):
    return CliRunner().invoke(app, ["audit", *words])


def documents(file, *words):
    result = invoke(*words, "--store", f"sqlite:///{file}", "--json")
    return result.exit_code, json.loads(result.stdout)


def tamper(file, statement):
    with sqlite3.connect(file) as sql:
        for trigger in ("audit_no_update", "audit_no_delete", "audit_tip_forward"):
            sql.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        sql.execute(statement)
    sql.close()


def test_a_chain_that_holds_is_exit_code_zero_and_gives_an_anchor(file):
    code, verdict = documents(file, "verify")
    assert (code, verdict["holds"], verdict["entries"], verdict["broken"]) == (0, True, 3, None)
    assert documents(file, "verify", "--expect", verdict["last"])[0] == 0
    assert verdict["last"] in invoke("verify", "--store", f"sqlite:///{file}").stdout


@pytest.mark.parametrize(
    ("statement", "entry", "kind"),
    [
        ("UPDATE audit SET actor = 'eve' WHERE id = 2", 2, "altered"),
        ("DELETE FROM audit WHERE id = 2", 2, "missing"),
        ("DELETE FROM audit WHERE id > 1", 2, "cut_off"),
    ],
)
def test_a_broken_chain_is_exit_code_one_and_the_first_entry(file, statement, entry, kind):
    tamper(file, statement)
    code, verdict = documents(file, "verify")
    assert (code, verdict["holds"], verdict["entries"]) == (1, False, 1)
    assert verdict["last"] is None, "what may be wrong is no anchor"
    assert (verdict["broken"]["entry"], verdict["broken"]["kind"]) == (entry, kind)
    shown = invoke("verify", "--store", f"sqlite:///{file}")
    assert shown.exit_code == 1
    assert kind in shown.stdout


def test_an_anchor_finds_an_end_that_was_cut_off_with_the_tip(file):
    noted = documents(file, "verify")[1]["last"]
    tamper(file, "DELETE FROM audit WHERE id = 3")
    tamper(file, "UPDATE audit_tip SET (entry, hash) = (SELECT id, hash FROM audit WHERE id = 2)")
    assert documents(file, "verify")[0] == 0
    code, verdict = documents(file, "verify", "--expect", noted)
    assert (code, verdict["broken"]["entry"], verdict["broken"]["kind"]) == (1, 3, "cut_off")


def test_the_log_is_listed_newest_first_in_pages(file):
    code, listed = documents(file, "list", "--limit", "2")
    assert code == 0
    assert [event["target"] for event in listed["events"]] == ["edit-3", "edit-2"]
    older = documents(file, "list", "--before", "2")[1]["events"]
    assert [event["id"] for event in older] == [1]
    assert "edit-1" in invoke("list", "--store", f"sqlite:///{file}").stdout


def test_a_store_that_is_not_there_is_refused_and_not_made(tmp_path):
    gone = tmp_path / "gone.db"
    for command in ("verify", "list"):
        assert isinstance(
            invoke(command, "--store", f"sqlite:///{gone}").exception, StoreUnavailable
        )
    assert list(tmp_path.iterdir()) == []
    assert isinstance(invoke("verify", "--store", "no url").exception, StoreUnavailable)


def test_what_is_no_anchor_is_one_line_and_exit_code_one(file, monkeypatch, capsys):
    words = ["quickfix", "audit", "verify", "--store", f"sqlite:///{file}", "--expect", "3"]
    assert isinstance(invoke(*words[2:]).exception, QuickFixError)
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert "ID:HASH" in error and "[expect]" in error
    assert "Traceback" not in error


def test_an_empty_log_is_listed_and_holds(tmp_path):
    file = tmp_path / "empty.db"
    RevisionStore.open(f"sqlite:///{file}").close()
    assert documents(file, "list") == (0, {"events": []})
    assert documents(file, "verify")[1] == {
        "holds": True,
        "entries": 0,
        "last": None,
        "broken": None,
    }
    assert invoke("list", "--store", f"sqlite:///{file}").exit_code == 0


def test_no_torch_is_loaded(file):
    code = (
        "import sys; from edits.cli import app\n"
        f"app(['audit', sys.argv[1], '--store', 'sqlite:///{file}'], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    for command in ("verify", "list"):
        done = subprocess.run([sys.executable, "-c", code, command], cwd=ROOT, check=False)
        assert done.returncode == 0
