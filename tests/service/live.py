"""A real `bentoml serve` of the service on a pipeline folder, always torn down."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from edits.serving import serve_command, stop
from tests.device import DEVICE

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 300.0


@dataclass(frozen=True)
class LiveService:
    """One running service: where it answers, and the token that it made."""

    url: str
    state_dir: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def token(self) -> str:
        return (self.state_dir / "operator.token").read_text(encoding="utf-8").strip()

    @property
    def operator(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=60.0, **options)


@contextmanager
def serve(
    model: Path,
    folder: Path,
    *,
    environ: Mapping[str, str] | None = None,
    wait_ready: bool = True,
    wait: bool = True,
) -> Iterator[LiveService]:
    """Start the service with its state in `folder`; kill its whole process group at the end.

    Without `wait` it still loads: several can start at once, and `wait_for_http` waits for each.
    """
    # A test run that is told to end must end its services too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    port = free_port()
    state_dir, log = folder / "state", folder / "service.log"
    variables = {name: text for name, text in os.environ.items() if "QUICKFIX_" not in name}
    variables |= {
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "QUICKFIX_MODEL": str(model),
        "QUICKFIX_DEVICE": DEVICE,
        "QUICKFIX_THREADS": "1",
        "QUICKFIX_STATE_DIR": str(state_dir),
        "QUICKFIX_POLL_SECONDS": "0.2",
        "QUICKFIX_WARM_UP_SECONDS": "0",
        **(environ or {}),
    }
    (folder / "bentoml").mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            serve_command("127.0.0.1", port),
            cwd=REPOSITORY,
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    service = LiveService(f"http://127.0.0.1:{port}", state_dir, log, process)
    try:
        if wait:
            wait_for_http(service, ready=wait_ready)
        yield service
    finally:
        stop(process)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_http(service: LiveService, *, ready: bool) -> None:
    """The socket is open before the model is loaded: only an HTTP answer counts."""
    deadline = time.monotonic() + START_SECONDS
    with service.client() as client:  # one for all: each makes a TLS context
        while time.monotonic() < deadline and service.process.poll() is None:
            with suppress(httpx.HTTPError):
                answer = client.get("/readyz", timeout=2.0)
                if answer.status_code == 200 or not ready:
                    return
            time.sleep(0.1)
    raise RuntimeError(f"the service did not start:\n{service.log.read_text()[-4000:]}")
