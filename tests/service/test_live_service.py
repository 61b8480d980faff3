"""The contract on a real `bentoml serve`, over HTTP, with real clients."""

import base64
import hashlib
import io
import os
import signal
import sqlite3
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
import yaml
from PIL import Image

from edits.manifests import RevisionContent, parse_manifest
from edits.store import RevisionStore

from .live import LiveService, serve
from .pictures import picture, pixels
from .replica import manifest

pytestmark = pytest.mark.e2e


def metric(client: httpx.Client, name: str) -> float:
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(name + " "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name}")


def test_the_official_openai_client_works_unchanged(live: LiveService) -> None:
    client = openai.OpenAI(base_url=live.url + "/v1", api_key="unused", max_retries=0)
    (model,) = client.models.list().data
    answer = client.images.generate(
        model=model.id,
        prompt="a photo of a cat",
        n=2,
        size="32x32",  # type: ignore[call-overload]
        response_format="b64_json",
        user="someone",
        extra_body={"seed": 5, "steps": 3, "guidance_scale": 2.0},
    )
    assert answer.data is not None and len(answer.data) == 2
    assert abs(answer.created - time.time()) < 60
    for item in answer.data:
        image = Image.open(io.BytesIO(base64.b64decode(item.b64_json or "")))
        assert image.size == (32, 32)
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(model=model.id, prompt="cat " * 40)
    assert refused.value.param == "prompt"
    assert "at most 22" in str(refused.value)


def test_the_official_openai_client_reads_a_stream(live: LiveService) -> None:
    client = openai.OpenAI(base_url=live.url + "/v1", api_key="unused", max_retries=0)
    arrived: list[tuple[str, float]] = []
    images: list[Image.Image] = []
    with client.images.generate(
        prompt="a photo of a cat",
        stream=True,
        partial_images=2,
        extra_body={"seed": 5, "steps": 150},
    ) as stream:
        for event in stream:
            arrived.append((event.type, time.monotonic()))
            if event.type != "image_generation.progress":  # type: ignore[comparison-overlap]
                images.append(Image.open(io.BytesIO(base64.b64decode(event.b64_json))))
    kinds_of = [kind.removeprefix("image_generation.") for kind, _ in arrived]
    assert kinds_of.count("progress") == 150
    assert kinds_of.count("partial_image") == 2
    assert kinds_of[-1] == "completed"
    assert [image.size for image in images] == [(32, 32)] * 3
    # Not all at once in the end: the first step was told while most were still to come.
    assert arrived[-1][1] - arrived[0][1] > 0.1


def test_a_client_that_leaves_a_stream_stops_its_work(live: LiveService) -> None:
    with live.client() as client:
        name = 'quickfix_cancelled_total{cause="client_left"}'
        before = metric(client, name)
        long = {"prompt": "a cat", "steps": 150, "n": 10, "size": "64x64", "stream": True}
        with client.stream("POST", "/v1/images/generations", json=long) as answer:
            assert next(answer.iter_lines()) == "event: image_generation.progress"
        deadline = time.monotonic() + 10
        while metric(client, name) == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert metric(client, name) == before + 1
        assert metric(client, "quickfix_running") == 0


def test_probes_and_metrics_are_there(live: LiveService) -> None:
    with live.client() as client:
        for path in ("/livez", "/readyz", "/metrics"):
            assert client.get(path).status_code == 200
        pixels(client.post("/generate", json={"prompt": "a cat"}))
        assert metric(client, "quickfix_active_revision") >= 1
        assert metric(client, "quickfix_step_seconds_count") >= 4
        assert metric(client, 'quickfix_requests_total{outcome="ok"}') >= 1


def test_admin_calls_that_hang_on_the_store_starve_neither_probes_nor_images(
    live: LiveService,
) -> None:
    """Forty of them, as many as there are threads for all plain functions."""
    answers: list[httpx.Response] = []

    def ask() -> None:
        with live.client(headers=live.operator) as admin:
            answers.append(admin.get("/admin/audit", params={"limit": 1}))

    callers = [threading.Thread(target=ask) for _ in range(40)]
    lock = sqlite3.connect(live.state_dir / "quickfix.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")  # nothing can be recorded
    try:
        for caller in callers:
            caller.start()
        time.sleep(1)
        with live.client() as client:
            for _ in range(3):
                for path in ("/livez", "/readyz", "/metrics"):
                    assert client.get(path, timeout=3).status_code == 200
                pixels(client.post("/generate", json={"prompt": "a cat"}, timeout=5))
        while len(answers) < 24:  # those that found no place
            time.sleep(0.05)
    finally:
        lock.rollback()
        lock.close()
    for caller in callers:
        caller.join()
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 24
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "admin_busy")


def test_a_connection_that_idles_is_kept(live: LiveService) -> None:
    """BentoML's default of 5 s would close it under a gateway's next POST."""

    def port_of_client() -> int:
        stream = client.get("/livez").extensions["network_stream"]
        return int(stream.get_extra_info("client_addr")[1])

    with httpx.Client(base_url=live.url, limits=httpx.Limits(keepalive_expiry=None)) as client:
        before = port_of_client()
        time.sleep(6)
        assert port_of_client() == before


def test_refused_admin_calls_keep_our_error_shape_behind_bentoml(live: LiveService) -> None:
    with live.client() as client:
        answer = client.get("/admin/status")
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "unauthenticated"
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert client.get("/nowhere").json()["error"]["type"] == "not_found"


def test_edits_come_and_go_under_load_and_no_request_fails(live: LiveService) -> None:
    """Every image carries one revision; same seed, prompt and edits give the same picture."""
    drawn: list[tuple[str, int, np.ndarray]] = []
    failed: list[httpx.Response] = []
    edited: set[str] = set()
    stop = threading.Event()

    def draw(worker: int) -> None:
        with live.client() as client:
            turn = 0
            while not stop.is_set():
                turn += 1
                seed = (worker + turn) % 3
                answer = client.post("/generate", json={"prompt": "a pistol", "seed": seed})
                if answer.status_code != 200:
                    failed.append(answer)
                    continue
                revision = answer.headers["X-QuickFix-Revision"]
                image = picture(answer.content)
                assert image.text["X-QuickFix-Revision"] == revision  # type: ignore[attr-defined]
                drawn.append((revision, seed, np.asarray(image).astype(int)))

    def seen() -> set[tuple[bool, int]]:
        return {(revision in edited, seed) for revision, seed, _image in tuple(drawn)}

    workers = [threading.Thread(target=draw, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    times = 0
    with live.client(headers=live.operator) as admin:
        # How many pictures fall between two changes is up to the machine.
        while times < 5 or (len(seen()) < 6 and times < 50):
            times += 1
            published = admin.post("/admin/edits", json=manifest())
            assert published.status_code == 201, published.text
            edited.add(str(published.json()["revision"]))
            time.sleep(0.2)
            removed = admin.delete("/admin/edits", params={"name": "remove-pistol"})
            assert removed.status_code == 200, removed.text
            time.sleep(0.2)
    stop.set()
    for worker in workers:
        worker.join()
    assert not failed, failed[0].text
    assert len({revision for revision, _seed, _image in drawn}) >= 5
    pictures: dict[tuple[bool, int], list[np.ndarray]] = {}
    for revision, seed, image in drawn:
        kinds(pictures.setdefault((revision in edited, seed), []), image)
    assert {len(images) for images in pictures.values()} == {1}
    assert len(pictures) == 6  # each of three seeds, edited and pristine
    for seed in range(3):
        (with_edit,), (pristine,) = pictures[True, seed], pictures[False, seed]
        assert np.abs(with_edit - pristine).max() > 1


def kinds(known: list[np.ndarray], image: np.ndarray) -> None:
    """Add an image that is none of those known; who shared its batch may change a last digit."""
    if not any(np.abs(image - other).max() <= 1 for other in known):
        known.append(image)


def test_a_client_that_leaves_stops_its_work(live: LiveService) -> None:
    with live.client() as client:
        name = 'quickfix_cancelled_total{cause="client_left"}'
        before = metric(client, name)
        long = {"prompt": "a cat", "steps": 150, "n": 10, "size": "64x64"}
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/images/generations", json=long, timeout=0.5)
        deadline = time.monotonic() + 10
        while metric(client, name) == before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert metric(client, name) == before + 1
        assert metric(client, "quickfix_running") == 0


def test_the_log_holds_no_prompt_and_no_traceback(live: LiveService) -> None:
    with live.client() as client:
        client.post("/generate", json={"prompt": "zebra unicorn prompt"})
        client.post("/generate", json={"prompt": "zebra " * 50})
        client.post("/admin/edits", json=manifest(concept="zebra"), headers={})
    text = live.log.read_text(encoding="utf-8")
    assert "zebra" not in text
    assert "Traceback" not in text


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def test_a_head_that_cannot_be_verified_keeps_the_replica_out_until_it_is_replaced(
    sd1_folder: Path, tmp_path: Path
) -> None:
    """Fail closed at start, recovery by an operator, and a drain that finishes what runs."""
    (tmp_path / "state").mkdir()
    with RevisionStore.open(f"sqlite:///{tmp_path / 'state' / 'quickfix.db'}") as store:
        store.publish_and_activate(RevisionContent(), author="test", reason="empty")
        for_another_model = RevisionContent(
            edits=(parse_manifest(manifest()),), fingerprint="sha256:" + "0" * 64
        )
        store.publish_and_activate(for_another_model, author="test", reason="other model")
    tokens = tmp_path / "tokens.yaml"
    entries = [
        {"name": role, "role": role, "sha256": hashed(role)} for role in ("viewer", "operator")
    ]
    tokens.write_text(yaml.safe_dump({"tokens": entries}), encoding="utf-8")

    environ = {"QUICKFIX_TOKENS_FILE": str(tokens)}
    with (
        serve(sd1_folder, tmp_path, environ=environ, wait_ready=False) as service,
        service.client() as client,
    ):
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 503
        refused = client.post("/generate", json={"prompt": "a pistol"})
        assert (refused.status_code, refused.json()["error"]["type"]) == (503, "not_ready")
        assert not (service.state_dir / "operator.token").exists()

        viewer = {"Authorization": "Bearer viewer"}
        operator = {"Authorization": "Bearer operator"}
        status = client.get("/admin/status", headers=viewer).json()
        assert status["replica"]["last_error"].startswith("fingerprint_mismatch")
        forbidden = client.post("/admin/rollback", json={"to": 1}, headers=viewer)
        assert forbidden.status_code == 403
        assert forbidden.json()["error"]["type"] == "forbidden"
        assert client.get("/readyz").status_code == 503

        assert client.post("/admin/rollback", json={"to": 1}, headers=operator).status_code == 200
        assert client.get("/readyz").status_code == 200
        drawn = client.post("/generate", json={"prompt": "a pistol"})
        assert drawn.headers["X-QuickFix-Revision"] == "3"

        answers: list[np.ndarray] = []
        long = {"prompt": "a pistol", "steps": 100}
        running = threading.Thread(
            target=lambda: answers.append(pixels(client.post("/generate", json=long)))
        )
        running.start()
        time.sleep(0.4)
        os.kill(service.process.pid, signal.SIGTERM)
        running.join(timeout=60)
        assert len(answers) == 1
        assert service.process.wait(timeout=30) == 0


def test_a_misspelt_variable_ends_the_start_with_the_known_names(
    sd1_folder: Path, tmp_path: Path
) -> None:
    with (
        pytest.raises(RuntimeError, match="QUICKFIX_EDITS_DIR"),
        serve(sd1_folder, tmp_path, environ={"QUICKFIX_EDIT_DIR": "edits"}),
    ):
        pytest.fail("the service started")
