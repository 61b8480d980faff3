"""A gateway's clients, and an operator who publishes: what they were answered, and when."""

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

import httpx

from benchmarks.faults.supervised import READINESS, Supervised
from benchmarks.fence import EDIT

PROMPTS = ("a photo of a pistol", "a photo of a cat")
REQUEST_SECONDS = 30.0


@dataclass(frozen=True)
class Seen:
    """One request as its user saw it; `status` 0: no answer, or no replica was ready."""

    service: str
    status: int
    asked_at: float  # time.monotonic()
    completed_at: float
    revision: int = 0


@dataclass(frozen=True)
class Acknowledged:
    """One admin write that was answered with 2xx."""

    revision: int
    digest: str
    closed: bool  # the fence
    at: float


class Gateway:
    """Clients that are sent to ready replicas in turn, as a Service with readiness probes does.

    A replica leaves after as many failed probes as the manifests say, or when its process has
    ended, which the kubelet sees; it comes back with one good probe.
    """

    def __init__(self, services: Sequence[Supervised], clients: int) -> None:
        self.seen: list[Seen] = []
        self._ready = dict.fromkeys(services, True)  # each written by its own probe
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._probe, args=(each,)) for each in services]
        self._threads += [threading.Thread(target=self._draw, args=(n,)) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let every client finish its request."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _probe(self, service: Supervised) -> None:
        failures, starts = 0, service.starts
        while not self._stop.wait(READINESS["periodSeconds"]):
            failures = 0 if service.ready else failures + 1
            restarted, starts = service.starts > starts, service.starts
            if failures == 0:
                self._ready[service] = True
            elif restarted or failures >= READINESS["failureThreshold"]:
                self._ready[service] = False

    def _draw(self, number: int) -> None:
        turn = number
        while not self._stop.is_set():
            turn += 1
            ready = [service for service, is_ready in self._ready.items() if is_ready]
            if not ready:
                now = time.monotonic()
                self.seen.append(Seen("", 0, now, now))
                self._stop.wait(0.5)
                continue
            self.seen.append(draw(ready[turn % len(ready)], seed=number))
            if self.seen[-1].status != httpx.codes.OK:
                self._stop.wait(0.5)


def draw(service: Supervised, seed: int, timeout: float = REQUEST_SECONDS) -> Seen:
    """One image."""
    body = {"prompt": PROMPTS[seed % len(PROMPTS)], "seed": seed}
    asked = time.monotonic()
    status, revision = 0, 0
    try:
        answer = service.public.post("/generate", json=body, timeout=timeout)
    except httpx.HTTPError:
        pass
    else:
        status = answer.status_code
        revision = int(answer.headers.get("X-QuickFix-Revision", 0))
    return Seen(service.name, status, asked, time.monotonic(), revision)


class Operator:
    """Publishes and withdraws an edit in turn, through the services in turn, with the fence."""

    def __init__(self, services: Sequence[Supervised], pause: float = 1.0) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.answers: Counter[str] = Counter()
        self._services = services
        self._pause = pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._operate)
        self._thread.start()

    def end(self) -> None:
        """Let the running call finish."""
        self._stop.set()
        self._thread.join()

    def _operate(self) -> None:
        turn = 0
        while not self._stop.wait(self._pause):
            turn += 1
            try:
                answer = self._write(self._services[turn % len(self._services)], turn)
            except (httpx.HTTPError, OSError) as error:
                self.answers[type(error).__name__] += 1
                continue
            self.answers[str(answer.status_code)] += 1
            if answer.is_success:
                body = answer.json()
                closed = bool(body.get("fence", {}).get("closed", False))
                told = Acknowledged(body["revision"], body["digest"], closed, time.monotonic())
                self.acknowledged.append(told)

    @staticmethod
    def _write(service: Supervised, turn: int) -> httpx.Response:
        with service.admin(timeout=40) as admin:
            active = admin.get("/admin/edits").json().get("edits", [])
            if any(edit["metadata"]["name"] == "fenced" for edit in active):
                return admin.delete("/admin/edits", params={"name": "fenced", "wait": 20})
            manifest = {**EDIT, "metadata": {"name": "fenced", "version": turn}}
            return admin.post("/admin/edits", json=manifest, params={"wait": 20})


def p95(requests: Sequence[Seen]) -> float | None:
    """Of the answered ones, in seconds."""
    taken = [each.completed_at - each.asked_at for each in requests if each.status == 200]
    if not taken:
        return None
    return quantiles(taken, n=20, method="inclusive")[-1] if len(taken) > 1 else taken[0]
