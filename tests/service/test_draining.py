"""SIGTERM on a real `bentoml serve`: what runs is finished, all else is refused, and it ends."""

import os
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from edits.store import ReplicaReport, RevisionStore

from .live import LiveService, serve
from .replica import manifest

pytestmark = pytest.mark.e2e

IMAGES = "/v1/images/generations"
LONG = {"prompt": "a cat", "steps": 150, "n": 2, "size": "64x64"}  # seconds of work


def wait_for_status(client: httpx.Client, service: LiveService, **wanted: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        replica = client.get("/admin/status", headers=service.operator).json()["replica"]
        if {name: replica[name] for name in wanted} == wanted:
            return
        time.sleep(0.01)
    raise AssertionError(f"never {wanted}")


def post(service: LiveService, body: dict[str, Any]) -> tuple[httpx.Response, float]:
    with service.client() as client:
        return client.post(IMAGES, json=body), time.monotonic()


def ending(service: LiveService) -> int:
    """SIGTERM to the leader, as a supervisor sends it; its worker's process id."""
    children = psutil.Process(service.process.pid).children()
    (worker,) = (child.pid for child in children if os.getpgid(child.pid) == child.pid)
    os.kill(service.process.pid, signal.SIGTERM)
    return worker


def test_what_runs_is_finished_and_what_waits_or_is_new_is_refused_at_once(
    sd1_folder: Path, tmp_path: Path
) -> None:
    with (
        serve(sd1_folder, tmp_path, environ={"QUICKFIX_MAX_BATCH": "1"}) as service,
        service.client() as kept_alive,
        ThreadPoolExecutor() as clients,
    ):
        running: Future[tuple[httpx.Response, float]] = clients.submit(post, service, LONG)
        wait_for_status(kept_alive, service, running=1)
        queued = clients.submit(post, service, LONG)
        wait_for_status(kept_alive, service, waiting=1)
        worker = ending(service)
        refused, refused_at = queued.result(20)
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "not_ready")
        assert refused.json()["error"]["message"] == "this replica shuts down"
        assert kept_alive.get("/readyz").status_code == 503
        again = kept_alive.post(IMAGES, json=LONG)
        assert (again.status_code, again.headers["Connection"]) == (503, "close")
        late, _ = post(service, LONG)  # on a connection of its own
        assert late.status_code == 503
        os.kill(worker, signal.SIGTERM)  # a supervisor that signals the whole group changes nothing
        assert not running.done()
        drawn, drawn_at = running.result(60)
        assert drawn.status_code == 200
        assert len(drawn.json()["data"]) == 2
        assert refused_at < drawn_at
        assert service.process.wait(timeout=15) == 0


def test_what_does_not_end_in_time_is_cancelled_and_the_process_ends(
    sd1_folder: Path, tmp_path: Path
) -> None:
    environ = {"QUICKFIX_MAX_BATCH": "1", "QUICKFIX_DRAIN_SECONDS": "0.2"}
    with (
        serve(sd1_folder, tmp_path, environ=environ) as service,
        service.client() as client,
        ThreadPoolExecutor() as clients,
    ):
        running = clients.submit(post, service, LONG)
        wait_for_status(client, service, running=1)
        ending(service)
        stopped, _ = running.result(10)
        assert (stopped.status_code, stopped.json()["error"]["type"]) == (503, "not_ready")
        assert service.process.wait(timeout=15) == 0


def test_an_admin_call_that_waits_for_its_fence_does_not_hold_the_end(
    sd1_folder: Path, tmp_path: Path
) -> None:
    with (
        serve(sd1_folder, tmp_path) as service,
        service.client(headers=service.operator) as admin,
        ThreadPoolExecutor() as clients,
    ):
        silent = ReplicaReport("lost", "elsewhere", datetime.now(UTC), active_revision=1)
        with RevisionStore.open(f"sqlite:///{service.state_dir / 'quickfix.db'}") as store:
            store.acknowledge(silent)
            publishing = clients.submit(
                admin.post, "/admin/edits", params={"wait": 50}, json=manifest()
            )
            deadline = time.monotonic() + 20
            while store.pointer().number != 2:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        time.sleep(0.5)
        assert not publishing.done()
        ending(service)
        answer = publishing.result(10)
        assert answer.status_code == 202
        assert [late["id"] for late in answer.json()["fence"]["laggards"]] == ["lost"]
        assert service.process.wait(timeout=15) == 0
