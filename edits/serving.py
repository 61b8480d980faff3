"""Start the service as a process of its own and wait until it is ready."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

SERVICE = "service.app:QuickFix"
START_SECONDS = 180.0
STOP_SECONDS = 30.0
# Longer than any common gateway keeps an idle connection: who closes first must be who sends, else
# a POST meets a closed connection, and nobody may send a POST again by itself.
# And an end to waiting for clients that read slowly, once what was drawn has ended.
LEAVE_SECONDS = 30
SERVE_OPTIONS = (
    *("--timeout-keep-alive", "620"),
    *("--timeout-graceful-shutdown", str(LEAVE_SECONDS)),
)


class ServiceDidNotStart(RuntimeError):
    """The process ended, or did not become ready in time; the message says where its log is."""


def serve_command(host: str, port: int) -> list[str]:
    """The command that serves in the foreground."""
    command = [sys.executable, "-m", "bentoml", "serve", SERVICE, *SERVE_OPTIONS]
    return [*command, "--host", host, "--port", str(port)]


@dataclass(frozen=True)
class LocalService:
    """A running service: where it answers, its operator token, and the process that leads it."""

    url: str
    token: str
    pid: int

    def client(self, timeout: float = 120.0) -> httpx.Client:
        """An HTTP client that carries the token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout)


@contextmanager
def local_service(
    folder: Path, *, port: int, settings: Mapping[str, str]
) -> Iterator[LocalService]:
    """Serve on loopback with all state in `folder`; `settings` are QUICKFIX_ variables.

    The process is stopped at the end, and killed if it does not stop. Raises ServiceDidNotStart.
    """
    state = folder / "state"
    bento = folder / "bentoml"
    bento.mkdir(parents=True, exist_ok=True)
    variables = {
        "BENTOML_HOME": str(bento),
        "BENTOML_DO_NOT_TRACK": "True",
        "QUICKFIX_STATE_DIR": str(state),
        **settings,
    }
    url = f"http://127.0.0.1:{port}"
    command = serve_command("127.0.0.1", port)
    with running(command, url=url, log=folder / "service.log", variables=variables) as pid:
        token = (state / "operator.token").read_text(encoding="utf-8").strip()
        yield LocalService(url, token, pid)


@contextmanager
def running(
    command: Sequence[str], *, url: str, log: Path, variables: Mapping[str, str]
) -> Iterator[int]:
    """A process group of that command, once `url` says that it is ready: the leader's id.

    It is stopped at the end, and killed if it does not stop. Raises ServiceDidNotStart.
    """
    # `env` leaves the rest of the environment to the child without this library reading it.
    environment = ["env", *(f"{name}={text}" for name, text in variables.items())]
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [*environment, *command],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_ready(url, process, log)
        yield process.pid
    finally:
        stop(process)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/readyz", timeout=2.0).status_code == httpx.codes.OK:
                return
        time.sleep(0.2)
    raise ServiceDidNotStart(f"the service on {url} did not become ready; its log is {log}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, and end what has not in STOP_SECONDS.

    BentoML's workers lead process groups of their own: they are found by their parent.
    """
    workers: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        workers = psutil.Process(process.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=STOP_SECONDS)
    for worker in workers:
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    if process.poll() is None:
        process.kill()
    process.wait(timeout=STOP_SECONDS)
