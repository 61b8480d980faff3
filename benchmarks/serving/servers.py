"""The service and its peers as processes of their own, all with the same threads."""

import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.serving.plan import Plan
from edits.serving import local_service, running

__all__ = ["ADAPTIVE_STREAM", "PEERS", "QUICKFIX", "Server", "peer", "quickfix", "start"]

QUICKFIX = "quickfix"
PEERS = {
    "plain": "benchmarks.serving.peers.plain:Plain",
    "adaptive": "benchmarks.serving.peers.adaptive:Adaptive",
}
# The adaptive peer as somebody sets it who has latency in mind: the less a request may take, the
# less BentoML waits for a batch. In a crowd of clients it then drops what would take longer.
ADAPTIVE_STREAM = "adaptive-stream"
_STREAM_ARGUMENTS = {"max_latency_ms": 20_000}

# A queue that is full and a deadline that passes are errors; at saturation there shall be none.
_PATIENT = {
    "QUICKFIX_MAX_QUEUE": "4096",
    "QUICKFIX_REQUEST_TIMEOUT_SECONDS": "600",
}


@dataclass(frozen=True, slots=True)
class Server:
    """One that answers `POST /generate`."""

    name: str
    url: str
    pid: int
    token: str = ""  # of an operator; the peers have none

    def admin(self) -> httpx.Client:
        """A client that may change edits and policies."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=120.0)

    @property
    def processes(self) -> list[psutil.Process]:
        """The whole tree."""
        parent = psutil.Process(self.pid)
        return [parent, *parent.children(recursive=True)]

    @property
    def resident_bytes(self) -> int:
        """Resident memory of the whole tree."""
        return sum(process.memory_info().rss for process in self.processes)

    @property
    def cpu_seconds(self) -> float:
        """What the whole tree has used of the cores so far."""
        times = [process.cpu_times() for process in self.processes]
        return float(sum(each.user + each.system for each in times))


@contextmanager
def quickfix(
    folder: Path, plan: Plan, *, settings: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """This service, with a queue and deadlines that no load here reaches."""
    variables = _threads(plan.threads) | _PATIENT
    variables |= {
        "QUICKFIX_MODEL": plan.model,
        "QUICKFIX_DEVICE": plan.device,
        "QUICKFIX_DTYPE": plan.dtype,
        "QUICKFIX_THREADS": str(plan.threads),
        **(settings or {}),
    }
    with local_service(folder, port=_free_port(), settings=variables) as service:
        yield Server(QUICKFIX, service.url, service.pid, service.token)


@contextmanager
def peer(
    name: str, folder: Path, plan: Plan, *, arguments: Mapping[str, object] = {}
) -> Iterator[Server]:
    """A peer, with the arguments that it is not to take by default."""
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    given = {
        "model": plan.model,
        "device": plan.device,
        "dtype": plan.dtype,
        "threads": plan.threads,
        **arguments,
    }
    command = [sys.executable, "-m", "bentoml", "serve", PEERS[name], "--host", "127.0.0.1"]
    command += ["--port", str(port)]
    for key, value in given.items():
        command += ["--arg", f"{key}={value}"]
    folder.mkdir(parents=True, exist_ok=True)
    variables = _threads(plan.threads)
    variables |= {"BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True"}
    with running(command, url=url, log=folder / "service.log", variables=variables) as pid:
        server = Server(name, url, pid)
        tree = server.processes
        yield server
    # BentoML's workers lead groups of their own: they outlive a supervisor that had to be killed.
    for process in tree:
        if process.is_running():
            process.kill()


def start(name: str, folder: Path, plan: Plan) -> AbstractContextManager[Server]:
    """The service or a peer, in a new folder of its own inside `folder`."""
    place = folder / f"{name}-{time.monotonic_ns()}"
    if name == QUICKFIX:
        return quickfix(place, plan)
    if name == ADAPTIVE_STREAM:
        return peer("adaptive", place, plan, arguments=_STREAM_ARGUMENTS)
    return peer(name, place, plan)


def _threads(number: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(number)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
