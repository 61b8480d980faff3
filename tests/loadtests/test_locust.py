"""The real load tests, in processes of their own: against a real service and a lying one."""

import base64
import io
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..service.live import REPOSITORY, serve
from ..tiny_pipeline import write_pipeline

pytestmark = pytest.mark.e2e

PROMPTS = "a photo of a cat\nan image of a pistol\na toy robot\n"  # what the tiny model can spell


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_a_set_measures_its_baseline_and_gives_a_verdict_of_each_profile(tmp_path: Path) -> None:
    """What holds of these runs on any machine; how fast they are is for a quiet one to say."""
    (tmp_path / "prompts.txt").write_text(PROMPTS, encoding="utf-8")
    model = write_pipeline(tmp_path / "model")
    out = tmp_path / "out"
    profiles = ("unloaded", "saturation", "steady", "overload", "swap")
    with serve(model, tmp_path, environ={"QUICKFIX_MAX_QUEUE": "4"}) as service:
        with service.client() as client:  # the first image of a process is a slow one
            client.post("/generate", json={"prompt": "a cat"}).raise_for_status()
        ended = run(
            *("loadtests", *profiles, "--minutes", 0.15, "--clients", 4, "--out", out),
            *("--host", service.url, "--token-file", service.state_dir / "operator.token"),
            *("--prompts", tmp_path / "prompts.txt"),
        )
    assert (out / "loadtest.json").exists(), ended.stderr
    outcomes: dict[str, Any] = {
        outcome["profile"]: outcome for outcome in json.loads((out / "loadtest.json").read_text())
    }
    assert tuple(outcomes) == profiles
    for profile, outcome in outcomes.items():
        assert outcome["failed"] == 0, (profile, outcome["failures"])
        assert outcome["drawn"] >= 5, profile
        assert outcome["compared"] >= 1, profile
        assert outcome["latency"]["p50"] >= outcome["service"]["p50"] > 0, profile
        assert 0 < outcome["generator_cpu"] < 1, profile
        assert "<html" in (out / f"{profile}.html").read_text(encoding="utf-8"), profile
        assert profile in ended.stdout
    for profile in ("unloaded", "saturation"):  # at random moments four may well meet a fifth
        assert outcomes[profile]["refused"] == 0, profile
    assert outcomes["overload"]["refused"] >= 1
    assert outcomes["swap"]["activations"] >= 1
    assert outcomes["swap"]["revisions"] >= 2
    breaches = [breach for outcome in outcomes.values() for breach in outcome["breaches"]]
    assert ended.returncode == (1 if breaches else 0), ended.stderr


FAULTS = {
    "mixed revisions": "X-QuickFix-Revision is",
    "429 without Retry-After": "Retry-After",
    "500": "status 500",
    "other pixels": "gave other pixels",
    "another size": "the PNG is",
}


@contextmanager
def lying(fault: str) -> Iterator[str]:
    """A server of the images route with one fault."""

    class Handler(BaseHTTPRequestHandler):
        drawn = 0

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if fault == "429 without Retry-After":
                return self.answer(429, {}, b"{}")
            if fault == "500":
                return self.answer(500, {}, b"{}")
            stamp = {
                "X-QuickFix-Revision": "1",
                "X-QuickFix-Digest": "sha256:ab",
                "X-Request-Id": "r",
            }
            Handler.drawn += 1
            grey = 60 * (Handler.drawn % 4) if fault == "other pixels" else 0
            image = Image.new("RGB", (16, 8) if fault == "another size" else (8, 8), (grey,) * 3)
            chunks, buffer = PngInfo(), io.BytesIO()
            for name, text in stamp.items():
                chunks.add_text(name, text)
            image.save(buffer, "PNG", pnginfo=chunks)
            if fault == "mixed revisions":
                stamp["X-QuickFix-Revision"] = "2"
            file = base64.b64encode(buffer.getvalue()).decode()
            size = f"{image.width}x{image.height}"
            body = json.dumps({"data": [{"b64_json": file}], "size": size}).encode()
            return self.answer(200, stamp, body)

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, text in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: hundreds of lines."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_service_that_breaks_the_contract_fails(tmp_path: Path, fault: str) -> None:
    with lying(fault) as url:
        ended = run(
            *("locust", "-f", "loadtests/profiles/unloaded.py", "--headless", "--only-summary"),
            *("-u", 1, "-t", "2s", "--host", url, "--size", "8x8"),
            *("--outcome", tmp_path / "outcome.json"),
        )
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert ended.returncode == 1, ended.stderr
    assert any(FAULTS[fault] in failure for failure in outcome["failures"]), outcome


def test_a_service_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("none", encoding="utf-8")
    nobody = ("--host", "http://127.0.0.1:9", "--token-file", tmp_path / "token")
    ended = run("loadtests", "steady", *nobody, "--out", tmp_path / "out")
    assert ended.returncode == 1
    assert "could not be run" in ended.stderr
    assert "Traceback" not in ended.stderr
