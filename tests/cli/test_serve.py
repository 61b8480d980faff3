"""`quickfix serve` as a supervisor runs it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.service.live import free_port
from tests.tiny_pipeline import write_pipeline


@pytest.mark.e2e
def test_a_server_ends_when_its_command_is_told_to_and_leaves_no_process(tmp_path: Path) -> None:
    port = free_port()
    command = ["-c", "from edits.cli import main; main()", "serve", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command, "--model", str(write_pipeline(tmp_path / "tiny", "sd-1.x"))],
            env=os.environ
            | {
                "QUICKFIX_STATE_DIR": str(tmp_path / "state"),
                "QUICKFIX_DRAIN_SECONDS": "1",
                "BENTOML_HOME": str(tmp_path),
            },
            stdout=log,
            stderr=log,
        )
    tree: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 120
        while not _ready(port):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.2)
        leader = psutil.Process(process.pid)
        tree = [leader, *leader.children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        _, alive = psutil.wait_procs(tree[1:], timeout=10)
        assert not alive
        assert not _ready(port)
    finally:
        for each in tree:
            if each.is_running():
                each.kill()
        process.kill()
        process.wait()


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False
