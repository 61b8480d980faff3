"""The demo's flow against a real service on the shipped model, with few pictures."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from PIL import Image

from edits.demo import groups, run_demo
from edits.evaluation.report import load_judge
from edits.serving import ServiceDidNotStart, local_service

from ..service.live import free_port

MODEL = Path(__file__).resolve().parents[2] / "models" / "demo"

pytestmark = pytest.mark.e2e


def test_two_concepts_go_while_serving_and_come_back_bit_for_bit(tmp_path):
    judge = load_judge(str(MODEL))
    chosen = tuple(
        replace(group, probes=group.probes[:3]) for group in groups(judge, targets=3, seed=90)
    )
    with (
        local_service(
            tmp_path, port=free_port(), settings={"QUICKFIX_MODEL": str(MODEL)}
        ) as service,
        service.client() as client,
    ):
        report = run_demo(client, judge, chosen, tmp_path / "out")
    assert report["restored_identical"] == {"identical": 12, "n": 12}
    first, edited, last = report["revisions"]
    assert first < edited < last
    rates = report["groups"]
    assert rates["pistol"]["before"]["rate"] == 1.0
    assert rates["pistol"]["after"]["rate"] == 0.0
    assert rates["van gogh"]["after"]["rate"] == 0.0
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == report
    with Image.open(tmp_path / "out" / "before_after.png") as sheet:
        assert sheet.height > 4 * 2 * 96


def test_a_service_that_cannot_start_is_named_with_its_log(tmp_path):
    with (
        pytest.raises(ServiceDidNotStart, match=r"service\.log"),
        local_service(tmp_path, port=free_port(), settings={"QUICKFIX_MODLE": "x"}),
    ):
        pass
    assert "QUICKFIX_MODLE" in (tmp_path / "service.log").read_text()


def test_a_demo_that_is_told_to_end_ends_its_service(tmp_path):
    command = [sys.executable, "-m", "edits.cli", "demo", "--model", str(MODEL)]
    with subprocess.Popen([*command, "--out", str(tmp_path)], stderr=subprocess.DEVNULL) as demo:
        started: list[psutil.Process] = []
        deadline = time.monotonic() + 120
        while len(started) < 2 and time.monotonic() < deadline:  # BentoML and its worker
            started = psutil.Process(demo.pid).children(recursive=True)
            time.sleep(0.1)
        assert len(started) == 2
        demo.terminate()
        demo.wait(timeout=60)
    assert not [process for process in started if process.is_running()]
