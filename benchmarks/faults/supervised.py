"""Services that a supervisor starts again, as the kubelet does, and PostgreSQL's processes."""

import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import yaml

from edits.serving import serve_command

# As shipped: how long a replica that hangs gets requests is the probe's doing.
(_SERVER,) = yaml.safe_load(Path("k8s/base/deployment.yaml").read_text(encoding="utf-8"))["spec"][
    "template"
]["spec"]["containers"]
READINESS: dict[str, int] = {
    name: value for name, value in _SERVER["readinessProbe"].items() if name != "httpGet"
}

START_SECONDS = 300.0
STOP_SECONDS = 30.0


class Supervised:
    """One service on loopback; a process of it that ends is started again at once."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, str]) -> None:
        self.name = name
        self.state_dir = Path(settings.get("QUICKFIX_STATE_DIR", str(folder / "state")))
        self._log = folder / "service.log"
        self._variables = {
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            "QUICKFIX_STATE_DIR": str(self.state_dir),
            "QUICKFIX_REPLICA": name,
            **settings,
        }
        (folder / "bentoml").mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self._port}"
        # No connection is kept: one that a killed service leaves behind would fail a later request.
        self.public = httpx.Client(
            base_url=self.url, limits=httpx.Limits(max_keepalive_connections=0)
        )
        self.starts = 0
        self._ended = False
        self._process = self._start()
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    @property
    def token(self) -> str:
        """The operator token that it made."""
        return (self.state_dir / "operator.token").read_text(encoding="utf-8").strip()

    @property
    def ready(self) -> bool:
        """Whether it says so within the time that the manifests give a probe."""
        with suppress(httpx.HTTPError):
            answer = self.public.get("/readyz", timeout=READINESS["timeoutSeconds"])
            return answer.status_code == httpx.codes.OK
        return False

    def admin(self, timeout: float = 60.0) -> httpx.Client:
        """A client that carries its token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout)

    def processes(self) -> list[psutil.Process]:
        """The one that was started and all that it started: workers have groups of their own."""
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        return []

    def kill(self) -> None:
        """SIGKILL to all of them, as the end of a container is."""
        for each in self.processes():
            with suppress(psutil.NoSuchProcess):
                each.kill()

    @property
    def pid(self) -> int:
        """The process that all others of the service descend from."""
        return self._process.pid

    def worker(self) -> psutil.Process:
        """The process that draws."""
        return max(self.processes()[1:], key=lambda each: each.memory_info().rss)

    def wait_until_ready(self) -> None:
        """Raises RuntimeError with the end of its log when it does not become ready."""
        deadline = time.monotonic() + START_SECONDS
        while not self.ready:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} is not ready:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.1)

    def end(self) -> None:
        """Stop it for good."""
        self._ended = True
        processes = self.processes()
        self._process.terminate()
        _, left = psutil.wait_procs(processes, STOP_SECONDS)
        for each in left:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        self._thread.join()

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        # `env` adds to the environment without this program reading it.
        pairs = [f"{name}={text}" for name, text in self._variables.items()]
        with self._log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own command
                ["env", *pairs, *serve_command("127.0.0.1", self._port)],  # noqa: S607
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _supervise(self) -> None:
        while True:
            self._process.wait()
            if self._ended:
                return
            self._process = self._start()


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """SIGSTOP a process and all that it started, SIGCONT at the end."""
    parent = psutil.Process(pid)
    parent.suspend()  # first, or it would start more
    children = parent.children(recursive=True)
    try:
        for each in children:
            with suppress(psutil.NoSuchProcess):
                each.suspend()
        yield
    finally:
        for each in (*children, parent):
            with suppress(psutil.NoSuchProcess):
                each.resume()
