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
from typing import Any, ClassVar

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
        assert sum(outcome["compared"].values()) >= 1, profile
        assert outcome["latency"]["p50"] >= outcome["service"]["p50"] > 0, profile
        assert 0 < outcome["generator_cpu"] < 1, profile
        assert "<html" in (out / f"{profile}.html").read_text(encoding="utf-8"), profile
        assert profile in ended.stdout
    for profile in ("unloaded", "saturation"):  # at random moments four may well meet a fifth
        assert outcomes[profile]["refused"] == 0, profile
    assert outcomes["overload"]["refused"] >= 1
    assert outcomes["swap"]["activations"] >= 1
    assert outcomes["swap"]["revisions"] >= 2
    assert len(outcomes["swap"]["compared"]) == 2
    assert min(outcomes["swap"]["compared"].values()) >= 1
    assert outcomes["swap"]["told_apart"] >= 1
    breaches = [breach for outcome in outcomes.values() for breach in outcome["breaches"]]
    assert ended.returncode == (1 if breaches else 0), ended.stderr


FAULTS = {
    "mixed revisions": "X-QuickFix-Revision is",
    "429 without Retry-After": "Retry-After",
    "500": "status 500",
    "other pixels": "gave other pixels",
    "another size": "the PNG is",
}


class Pretender(BaseHTTPRequestHandler):
    """A server that draws grey images."""

    def draw(self, grey: int, stamp: dict[str, str], *, width: int = 8, header: Any = ()) -> None:
        """Answer with an image of one colour; `header` is told in place of its stamp."""
        image = Image.new("RGB", (width, 8), (grey,) * 3)
        chunks, buffer = PngInfo(), io.BytesIO()
        for name, text in stamp.items():
            chunks.add_text(name, text)
        image.save(buffer, "PNG", pnginfo=chunks)
        file = base64.b64encode(buffer.getvalue()).decode()
        body = {"data": [{"b64_json": file}], "size": f"{image.width}x{image.height}"}
        self.answer(200, stamp | dict(header), body)

    def answer(self, status: int, headers: dict[str, str], body: Any) -> None:
        file = json.dumps(body).encode()
        self.send_response(status)
        for name, text in (headers | {"Content-Length": str(len(file))}).items():
            self.send_header(name, text)
        self.end_headers()
        self.wfile.write(file)

    def body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *_: object) -> None:
        """Nothing: hundreds of lines."""


def stamp_of(revision: int, digest: str) -> dict[str, str]:
    return {
        "X-QuickFix-Revision": str(revision),
        "X-QuickFix-Digest": digest,
        "X-Request-Id": "r",
    }


@contextmanager
def serving(handler: type[Pretender]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def lying(fault: str) -> type[Pretender]:
    """The images route with one fault."""

    class Lying(Pretender):
        drawn = 0

        def do_POST(self) -> None:
            self.body()
            if fault == "429 without Retry-After":
                return self.answer(429, {}, {})
            if fault == "500":
                return self.answer(500, {}, {})
            Lying.drawn += 1
            return self.draw(
                60 * (Lying.drawn % 4) if fault == "other pixels" else 0,
                stamp_of(1, "sha256:ab"),
                width=16 if fault == "another size" else 8,
                header={"X-QuickFix-Revision": "2"} if fault == "mixed revisions" else (),
            )

    return Lying


@pytest.mark.parametrize("fault", FAULTS)
def test_a_service_that_breaks_the_contract_fails(tmp_path: Path, fault: str) -> None:
    with serving(lying(fault)) as url:
        ended = run(
            *("locust", "-f", "loadtests/profiles/unloaded.py", "--headless", "--only-summary"),
            *("-u", 1, "-t", "2s", "--host", url, "--size", "8x8"),
            *("--outcome", tmp_path / "outcome.json"),
        )
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    assert ended.returncode == 1, ended.stderr
    assert any(FAULTS[fault] in failure for failure in outcome["failures"]), outcome


def swapping(fault: str) -> type[Pretender]:
    """Two sets that take turns, a shade of grey each; with one fault, or none."""

    class Swapping(Pretender):
        edited: ClassVar = [False]  # of each revision
        drawn = 0

        def do_GET(self) -> None:
            self.answer(200, {}, {"head": {"revision": len(self.edited)}})

        def do_POST(self) -> None:
            asked = self.body()
            if self.path.startswith("/admin/"):
                to = asked.get("to")  # a roll back; else a new edit
                self.edited.append(True if to is None else self.edited[to - 1])
                return self.answer(200, {}, {"revision": len(self.edited)})
            revision = len(self.edited)
            edited = shown = self.edited[revision - 1]
            Swapping.drawn += 1
            if fault == "stamps alone change":
                shown = False
            elif fault == "another set now and then" and Swapping.drawn % 5 == 0:
                shown = not edited
            stamp = stamp_of(revision, "sha256:cd" if edited else "sha256:ab")
            return self.draw(200 if shown else 20, stamp)

    return Swapping


@pytest.mark.parametrize(
    ("fault", "breach"),
    [
        ("", None),
        ("stamps alone change", "0 images differ from those of another digest"),
        ("another set now and then", "gave other pixels"),
    ],
)
def test_the_swap_profile_sees_a_set_that_is_not_the_one_it_is_told(
    tmp_path: Path, fault: str, breach: str | None
) -> None:
    (tmp_path / "token").write_text("any", encoding="utf-8")
    with serving(swapping(fault)) as url:
        ended = run(
            *("locust", "-f", "loadtests/profiles/swap.py", "--headless", "--only-summary"),
            *("-u", 1, "-t", "6s", "--host", url, "--saturation", 20, "--size", "8x8"),
            *("--token-file", tmp_path / "token", "--outcome", tmp_path / "outcome.json"),
        )
    outcome = json.loads((tmp_path / "outcome.json").read_text())
    told = " ".join(outcome["breaches"])
    assert set(outcome["compared"]) == {"sha256:ab", "sha256:cd"}
    assert min(outcome["compared"].values()) >= 5
    if breach is None:
        assert outcome["failed"] == 0, outcome
        assert outcome["told_apart"] >= 3
        assert "digest" not in told
    else:
        assert breach in told
        assert ended.returncode == 1, ended.stderr


def test_a_service_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("none", encoding="utf-8")
    nobody = ("--host", "http://127.0.0.1:9", "--token-file", tmp_path / "token")
    ended = run("loadtests", "steady", *nobody, "--out", tmp_path / "out")
    assert ended.returncode == 1
    assert "could not be run" in ended.stderr
    assert "Traceback" not in ended.stderr
