"""Real services of the demo model on one PostgreSQL, and clients that draw on them."""

import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from edits.serving import LocalService, local_service
from tests.postgres import Postgres, postgres

PROMPTS = ("a photo of a pistol", "a photo of a cat")


@dataclass(frozen=True)
class Drawn:
    """One answered request."""

    revision: int
    asked_at: float
    completed_at: float


class Clients:
    """Threads that draw without a pause, half of them on each service."""

    def __init__(self, services: list[LocalService], number: int) -> None:
        self.drawn: list[Drawn] = []
        self.failed: list[int] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._draw, args=(services[n % len(services)].url, n))
            for n in range(number)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let every thread finish its request."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _draw(self, url: str, seed: int) -> None:
        with httpx.Client(base_url=url, timeout=120) as client:
            while not self._stop.is_set():
                body = {"prompt": PROMPTS[seed % len(PROMPTS)], "seed": seed}
                asked = time.monotonic()
                answer = client.post("/generate", json=body)
                completed = time.monotonic()
                if answer.status_code != httpx.codes.OK:
                    self.failed.append(answer.status_code)
                    continue
                revision = int(answer.headers["X-QuickFix-Revision"])
                self.drawn.append(Drawn(revision, asked, completed))


@contextmanager
def services(
    number: int, settings: dict[str, str] | None = None
) -> Iterator[tuple[list[LocalService], Postgres, str]]:
    """So many services of one thread each, their PostgreSQL, and the URL of their store."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(postgres())
        url = stack.enter_context(server.database())
        started = [
            stack.enter_context(
                local_service(
                    folder / str(n),
                    port=_free_port(),
                    settings={
                        "QUICKFIX_STORE": url,
                        "QUICKFIX_THREADS": "1",
                        "QUICKFIX_REPLICA": f"service-{n}",
                        **(settings or {}),
                    },
                )
            )
            for n in range(1, number + 1)
        ]
        yield started, server, url


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
