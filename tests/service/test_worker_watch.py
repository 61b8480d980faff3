"""A parent process that ends with its worker, and a real service whose worker is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from .live import REPOSITORY, serve

PARENT = """
import subprocess, sys, time
from service.worker_watch import end_with_worker
end_with_worker()
for command in sys.argv[1:]:
    leads = not command.startswith("inside ")
    child = subprocess.Popen(command.removeprefix("inside ").split(), start_new_session=leads)
    print(child.pid, flush=True)
    time.sleep(1.5)
time.sleep(60)
"""


def parent(*commands: str) -> subprocess.Popen[str]:
    """A parent of those workers, started 1.5 s apart; it prints their process ids."""
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, *commands],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill(worker: int, how: signal.Signals) -> None:
    time.sleep(1)  # two looks
    os.kill(worker, how)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how a child ended")
class TestParent:
    def test_it_is_told_to_end_when_its_worker_is_killed(self) -> None:
        with parent("sleep 60") as process:
            assert process.stdout is not None
            kill(worker := int(process.stdout.readline()), signal.SIGKILL)
            # Nothing here handles SIGTERM, as BentoML does to end with what it has registered.
            assert process.wait(timeout=5) == -signal.SIGTERM
            assert process.stderr is not None
            said = process.stderr.read()
        assert f"the worker, process {worker}, was ended by SIGKILL" in said

    def test_it_is_told_to_end_when_its_worker_fails(self) -> None:
        with parent("false") as process:
            assert process.wait(timeout=5) == -signal.SIGTERM
            assert process.stderr is not None
            assert "exited with 1" in process.stderr.read()

    @pytest.mark.parametrize("first", ["sleep 60", "true"], ids=["by SIGTERM", "by itself"])
    def test_it_lives_on_when_its_worker_was_asked_to_end_and_watches_the_next(
        self, first: str
    ) -> None:
        with parent(first, "sleep 60") as process:
            assert process.stdout is not None
            worker = int(process.stdout.readline())
            if first != "true":
                kill(worker, signal.SIGTERM)
            second = int(process.stdout.readline())
            assert process.poll() is None
            kill(second, signal.SIGKILL)
            assert process.wait(timeout=5) == -signal.SIGTERM

    def test_a_child_that_is_no_worker_may_fail(self) -> None:
        with parent("inside false", "inside false") as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.readline()
            time.sleep(1)
            assert process.poll() is None
            process.kill()


@pytest.mark.e2e
def test_a_service_whose_worker_is_killed_refuses_connections_and_ends_with_1(
    sd1_folder: Path, tmp_path: Path
) -> None:
    """Else requests wait until BentoML has found out and the next worker has loaded."""
    with serve(sd1_folder, tmp_path) as service:
        (worker,) = psutil.Process(service.process.pid).children()
        worker.kill()
        assert service.process.wait(timeout=5) == 1
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{service.url}/livez")
        assert "was ended by SIGKILL: ending" in service.log.read_text(encoding="utf-8")
