"""The real load test, headless, against a real `bentoml serve`."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from ..service.live import REPOSITORY, serve
from ..tiny_pipeline import write_pipeline

pytestmark = pytest.mark.e2e

ROUTE = "/v1/images/generations"
REFUSED = ROUTE + " 429"
PROMPTS = "a photo of a cat\nan image of a pistol\na toy robot\n"  # what the tiny model can spell


def locust(url: str, folder: Path, users: int) -> tuple[int, dict[str, dict[str, str]], str]:
    """Exit code, locust's table by row name, and the log of a run of five seconds."""
    folder.mkdir()
    (folder / "prompts.txt").write_text(PROMPTS, encoding="utf-8")
    command = [sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py", "--headless"]
    run = subprocess.run(
        [
            *(*command, "--host", url, "-u", str(users), "-r", str(users), "-t", "5s"),
            *("--prompts", str(folder / "prompts.txt")),
            *("--stop-timeout", "20s", "--csv", str(folder / "run"), "--only-summary"),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    table: dict[str, dict[str, str]] = {}
    if (folder / "run_stats.csv").exists():
        with (folder / "run_stats.csv").open(encoding="utf-8") as file:
            table = {row["Name"]: row for row in csv.DictReader(file)}
    return run.returncode, table, run.stdout + run.stderr


def test_a_run_checks_images_and_counts_refusals_apart(tmp_path: Path) -> None:
    model = write_pipeline(tmp_path / "model")
    with serve(model, tmp_path, environ={"QUICKFIX_MAX_QUEUE": "1"}) as service:
        # One is drawn and one waits: two users never meet a full queue, eight do.
        code, table, log = locust(service.url, tmp_path / "two", users=2)
        assert code == 0, log
        assert int(table[ROUTE]["Request Count"]) >= 5
        assert int(table.get(REFUSED, {}).get("Request Count", "0")) == 0

        _code, table, log = locust(service.url, tmp_path / "eight", users=8)
        assert int(table[REFUSED]["Request Count"]) >= 1, log
        assert int(table["Aggregated"]["Failure Count"]) == 0, log


def test_a_run_that_draws_nothing_fails(tmp_path: Path) -> None:
    code, _table, log = locust("http://127.0.0.1:9", tmp_path / "run", users=1)
    assert code == 1
    assert "breach" in log
