"""A service to load: `quickfix serve` as a process of its own, or one that runs elsewhere."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

__all__ = ["Replica", "ReplicaDidNotStart", "local_replica"]

START_SECONDS = 180.0
STOP_SECONDS = 60.0


class ReplicaDidNotStart(RuntimeError):
    """It ended or was not ready in time; the message says where its log is."""


@dataclass(frozen=True, slots=True)
class Replica:
    """Where it answers, and the file of a token that may activate."""

    url: str
    token_file: Path

    def native_size(self) -> str:
        """WIDTHxHEIGHT that its model draws unasked. Raises httpx.HTTPError."""
        answer = httpx.get(f"{self.url}/v1/models", timeout=30.0)
        answer.raise_for_status()
        size: str = answer.json()["data"][0]["size"]
        return size


@contextmanager
def local_replica(folder: Path, *, max_queue: int) -> Iterator[Replica]:
    """The demo model on a free port of loopback, all state in `folder`; stopped at the end.

    Raises ReplicaDidNotStart.
    """
    state, log = folder / "state", folder / "service.log"
    variables = {
        **os.environ,
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "QUICKFIX_STATE_DIR": str(state),
        "QUICKFIX_MAX_QUEUE": str(max_queue),
    }
    (folder / "bentoml").mkdir(parents=True, exist_ok=True)
    port = _free_port()
    command = [str(Path(sys.executable).with_name("quickfix")), "serve", "--port", str(port)]
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, env=variables, stdout=output, stderr=output, start_new_session=True
        )
    replica = Replica(f"http://127.0.0.1:{port}", state / "operator.token")
    try:
        _wait_until_ready(replica, process, log)
        yield replica
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_ready(replica: Replica, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{replica.url}/readyz", timeout=2.0).status_code == httpx.codes.OK:
                return
        time.sleep(0.2)
    raise ReplicaDidNotStart(f"{replica.url} did not become ready; its log is {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=STOP_SECONDS)
            return
