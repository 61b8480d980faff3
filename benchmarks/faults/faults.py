"""The faults: each a block that begins one and ends it."""

import json
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from benchmarks.faults.supervised import Supervised, frozen
from edits.manifests import RevisionContent, catalog_entry
from edits.store import RevisionStore
from tests.manifests.hostile import as_json, bomb, changed
from tests.postgres import Postgres
from tests.severed import Link


@dataclass(frozen=True)
class Fleet:
    """Two services on one PostgreSQL; the second's link to it can be cut, its clock can step."""

    services: tuple[Supervised, Supervised]
    server: Postgres
    link: Link
    url: str
    clock: Path | None  # libfaketime's file of the second service
    seconds: float  # how long a fault lasts


Fault = Callable[[Fleet], AbstractContextManager[dict[str, object]]]


@contextmanager
def nothing(fleet: Fleet) -> Iterator[dict[str, object]]:
    """The control: load alone."""
    time.sleep(fleet.seconds)
    yield {}


@contextmanager
def killed(fleet: Fleet) -> Iterator[dict[str, object]]:
    """SIGKILL of a whole service; its supervisor starts it again."""
    fleet.services[1].kill()
    yield {}


@contextmanager
def worker_killed(fleet: Fleet) -> Iterator[dict[str, object]]:
    """SIGKILL of the process that draws; BentoML starts it again."""
    fleet.services[1].worker().kill()
    yield {}


@contextmanager
def stopped(fleet: Fleet) -> Iterator[dict[str, object]]:
    """SIGSTOP of a service, then SIGCONT."""
    with frozen(fleet.services[1].pid):
        time.sleep(fleet.seconds)
    yield {}


@contextmanager
def database_stopped(fleet: Fleet) -> Iterator[dict[str, object]]:
    """PostgreSQL shut down, then started."""
    fleet.server.stop()
    time.sleep(fleet.seconds)
    fleet.server.start()
    yield {}


@contextmanager
def database_frozen(fleet: Fleet) -> Iterator[dict[str, object]]:
    """SIGSTOP of every process of PostgreSQL: connections stay open and nothing answers."""
    with frozen(fleet.server.pid):
        time.sleep(fleet.seconds)
        answered = []
        for service in fleet.services:
            began = time.monotonic()
            told = "no answer"
            with service.admin(timeout=30) as admin, suppress(httpx.HTTPError):
                told = str(admin.get("/admin/status").json()["store_error"])
            answered.append((told, round(time.monotonic() - began, 1)))
    yield {"status_route": answered}


@contextmanager
def partitioned(fleet: Fleet) -> Iterator[dict[str, object]]:
    """One service's connections to PostgreSQL end, and new ones are refused."""
    fleet.link.cut()
    time.sleep(fleet.seconds)
    fleet.link.mend()
    yield {}


@contextmanager
def clock_stepped(fleet: Fleet) -> Iterator[dict[str, object]]:
    """The wall clock of one service goes an hour forward, two back, and right again."""
    assert fleet.clock is not None  # noqa: S101 - the caller asks first
    for step in ("+3600s", "-7200s", "+0s"):
        fleet.clock.write_text(step)
        time.sleep(fleet.seconds / 2)
    yield {}


@contextmanager
def slow_clients(fleet: Fleet) -> Iterator[dict[str, object]]:
    """Connections that send a request byte by byte, and ones that read a byte a second."""
    deadline = time.monotonic() + fleet.seconds
    body = json.dumps({"prompt": "a cat", "n": 4, "seed": 1}).encode()
    head = (
        "POST /v1/images/generations HTTP/1.1\r\nHost: quickfix\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()

    def reads_slowly(service: Supervised) -> None:
        with _connection(service, receive_buffer=2048) as channel:
            channel.sendall(head + body)
            while time.monotonic() < deadline:
                with suppress(TimeoutError):
                    channel.recv(1)
                time.sleep(1)

    def sends_slowly(service: Supervised) -> None:
        with _connection(service) as channel:
            for byte in head + body:
                if time.monotonic() > deadline:
                    return
                channel.sendall(bytes([byte]))
                time.sleep(1)

    _all_at_once([(kind, each) for each in fleet.services for kind in (reads_slowly, sends_slowly)])
    yield {"connections": 4 * _EACH}


@contextmanager
def broken_clients(fleet: Fleet) -> Iterator[dict[str, object]]:
    """Connections that close inside the body, send what is no HTTP, or no JSON."""
    deadline = time.monotonic() + fleet.seconds
    noise = random.Random(0)  # noqa: S311  not a secret
    head = (
        b"POST /generate HTTP/1.1\r\nHost: quickfix\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100000\r\n\r\n"
    )
    sent = [0]

    def breaks(service: Supervised) -> None:
        while time.monotonic() < deadline:
            kinds = (head + b'{"prompt": "a c', noise.randbytes(2000), head + noise.randbytes(100))
            with suppress(OSError), _connection(service) as channel:
                channel.sendall(noise.choice(kinds))
                sent[0] += 1
            time.sleep(0.05)

    _all_at_once([(breaks, each) for each in fleet.services], each=2)
    yield {"connections": sent[0]}


@contextmanager
def poisoned(fleet: Fleet) -> Iterator[dict[str, object]]:
    """Hostile manifests over the wire, then a head that was made for another model."""
    refused = {}
    with fleet.services[0].admin() as admin:
        for name, body in _HOSTILE.items():
            refused[name] = admin.post("/admin/edits", content=body).status_code
    with RevisionStore.open(fleet.url) as store:
        good = store.head_number()
        foreign = RevisionContent((catalog_entry("remove-beer"),), fingerprint="sha256:" + "0" * 64)
        store.publish_and_activate(foreign, author="fault", reason="made for another model")
        deadline, told = time.monotonic() + fleet.seconds, None
        with fleet.services[0].admin() as admin:
            while time.monotonic() < deadline:
                told = told or admin.get("/admin/status").json()["replica"]["last_error"]
                time.sleep(0.1)
            back = admin.post("/admin/rollback", json={"to": good})
    yield {
        "hostile_manifests": len(refused),
        "not_refused": [name for name, code in refused.items() if not 400 <= code < 500],
        "error_told": (told or "").partition(":")[0],
        "rolled_back": back.status_code,
    }


@contextmanager
def overloaded(fleet: Fleet) -> Iterator[dict[str, object]]:
    """Twice as many clients as places to run and to wait; one that is refused soon asks again."""
    deadline = time.monotonic() + fleet.seconds
    statuses: dict[str, int] = {}
    without_retry_after = [0]
    lock = threading.Lock()

    def hammers(service: Supervised) -> None:
        with httpx.Client(base_url=service.url, timeout=120) as client:
            while time.monotonic() < deadline:
                answer = client.post("/generate", json={"prompt": "a cat", "seed": 1})
                status = str(answer.status_code)
                with lock:
                    statuses[status] = statuses.get(status, 0) + 1
                    if status == "429" and "Retry-After" not in answer.headers:
                        without_retry_after[0] += 1
                if status == "429":
                    time.sleep(0.5)

    _all_at_once([(hammers, each) for each in fleet.services], each=2 * (MAX_BATCH + MAX_QUEUE))
    yield {"statuses": statuses, "429_without_retry_after": without_retry_after[0]}


FAULTS: dict[str, tuple[str, Fault]] = {
    "nothing": ("none, as a control", nothing),
    "killed": ("SIGKILL of a service", killed),
    "worker_killed": ("SIGKILL of its worker only", worker_killed),
    "stopped": ("SIGSTOP of a service, SIGCONT", stopped),
    "database_stopped": ("PostgreSQL stopped", database_stopped),
    "database_frozen": ("PostgreSQL frozen (SIGSTOP)", database_frozen),
    "partitioned": ("one service cut off from PostgreSQL", partitioned),
    "clock_stepped": ("one service's clock +1 h, -2 h, back", clock_stepped),
    "slow_clients": ("clients that send or read a byte a second", slow_clients),
    "broken_clients": ("clients that break off or send noise", broken_clients),
    "poisoned": ("hostile manifests and a poisoned head", poisoned),
    "overloaded": ("twice the load that there is room for", overloaded),
}
MAX_BATCH = 16  # images that a service draws at once
MAX_QUEUE = 8
_HOSTILE: dict[str, bytes] = {
    "ridge that is no number": as_json(changed(("spec", "method", "ridge"), float("nan"))),
    "ridge below zero": as_json(changed(("spec", "method", "ridge"), -1)),
    "unknown field": as_json(changed(("spec", "code"), "import os")),
    "concept that is its anchor": as_json(changed(("spec", "anchor"), "pistol")),
    "path as a name": as_json(changed(("metadata", "name"), "../../etc/passwd")),
    "object of Python": b"!!python/object/apply:os.system ['true']",
    "bomb of references": bomb(9, 9, "list"),
    "deep nesting": b"[" * 100_000,
    "two megabytes": b"a" * 2_000_000,
    "noise": random.Random(0).randbytes(4096),  # noqa: S311  not a secret
}
_EACH = 10


def _connection(service: Supervised, receive_buffer: int = 0) -> socket.socket:
    parts = urlsplit(service.url)
    channel = socket.socket()
    if receive_buffer:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    channel.settimeout(5)
    channel.connect((parts.hostname, parts.port))
    return channel


def _all_at_once(
    work: list[tuple[Callable[[Supervised], None], Supervised]], each: int = _EACH
) -> None:
    threads = [
        threading.Thread(target=target, args=(service,))
        for target, service in work
        for _ in range(each)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
