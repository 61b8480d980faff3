"""Bytes that no client of ours would send, to a real server: what each is answered, and its cost.

What h11 refuses before it is a request has no error shape (`plain`); all else has the one shape.
"""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psutil
import pytest
import uvicorn

from service.api.app import create_api
from service.api.edge import Edge
from service.api.limits import MAX_BODY_BYTES, MAX_HEADER_BYTES, MAX_HEADERS, MAX_TARGET_BYTES

from .live import LiveService
from .replica import Replica

pytestmark = pytest.mark.e2e

MEBIBYTE = 2**20
MAX_SECONDS = 5.0  # of an answer to an attack, on a machine that does other things too
MAX_GROWTH = 64 * MEBIBYTE
CAT = b'{"prompt": "a cat", "steps": 1, "seed": 1}'


@dataclass(frozen=True)
class Answer:
    """What came back; status 0 for a connection that was closed without a word."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def type(self) -> str:
        """The error's type, or `plain` where the answer has not our shape."""
        try:
            error = json.loads(self.body)["error"]
        except (ValueError, KeyError, TypeError):
            return "plain"
        assert set(error) == {"type", "message", "param"}
        return str(error["type"])


def exchange(url: str, *parts: bytes, pause: float = 0.0) -> Answer:
    """Send the parts, `pause` seconds between them, and read one answer."""
    host, port = url.removeprefix("http://").split(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        with suppress(ConnectionError):  # a server that has refused need not read the rest
            for part in parts:
                connection.sendall(part)
                time.sleep(pause)
        with suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
                if _whole(received):
                    break
    head, _, body = received.partition(b"\r\n\r\n")
    if not head:
        return Answer(0)
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in lines)}
    return Answer(int(first.split()[1]), headers, body)


def _whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return bool(end) and len(body) >= int(line.split(b":")[1])
    return False


def request(
    method: str = "POST",
    target: str = "/generate",
    *headers: bytes,
    body: bytes | None = None,
    kind: bytes = b"application/json",
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1".encode("latin-1"), b"Host: quickfix", *headers]
    if body is not None:
        lines += [b"Content-Type: " + kind, b"Content-Length: " + str(len(body)).encode()]
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")


def chunked(*chunks: bytes) -> bytes:
    head = request(
        "POST", "/generate", b"Content-Type: application/json", b"Transfer-Encoding: chunked"
    )
    sized = (f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
    return head + b"".join(sized) + b"0\r\n\r\n"


REFUSED = (400, "invalid_request")
PLAIN = (400, "plain")  # h11's own words
ABSENT = (404, "not_found")
ATTACKS: dict[str, tuple[bytes, tuple[int, str]]] = {
    # bodies
    "open brackets": (request(body=b"[" * MAX_BODY_BYTES), REFUSED),
    "open objects": (request(body=b'{"a":' * (MAX_BODY_BYTES // 5)), REFUSED),
    "brackets behind a token": (
        request("POST", "/admin/rollback", body=b"[" * MAX_BODY_BYTES),
        (401, "unauthenticated"),
    ),
    "a key twice": (request(body=b'{"prompt": "a cat", "prompt": "a pistol"}'), REFUSED),
    "NaN": (request(body=b'{"prompt": "a cat", "guidance_scale": NaN}'), REFUSED),
    "Infinity": (request(body=b'{"prompt": "a cat", "guidance_scale": 1e999}'), REFUSED),
    "a huge integer": (request(body=b'{"prompt": "a", "seed": ' + b"9" * 500_000 + b"}"), REFUSED),
    "half a character": (request(body=b'{"prompt": "\\ud800"}'), REFUSED),
    "a null character": (request(body=b'{"prompt": "a\\u0000cat"}'), REFUSED),
    "no UTF-8": (request(body=b'{"prompt": "\xff"}'), REFUSED),
    "UTF-16": (request(body='{"prompt": "a cat"}'.encode("utf-16")), REFUSED),
    "no body": (request(body=b""), REFUSED),
    "a list": (request(body=b"[]"), REFUSED),
    "plain text": (request(body=CAT, kind=b"text/plain"), REFUSED),
    "a form": (request(body=b"prompt=cat", kind=b"application/x-www-form-urlencoded"), REFUSED),
    "a broken multipart": (request(body=b"--x", kind=b"multipart/form-data; boundary=x"), REFUSED),
    "a broken content type": (request(body=CAT, kind=b";;;/"), REFUSED),
    "compressed": (
        request("POST", "/generate", b"Content-Encoding: gzip", body=b"\x1f\x8b\x08"),
        (415, "encoding_not_served"),
    ),
    # sizes
    "a body too large": (request(body=b" " * (MAX_BODY_BYTES + 1)), (413, "body_too_large")),
    "a body announced too large": (
        request("POST", "/generate", b"Content-Length: 99999999999"),
        (413, "body_too_large"),
    ),
    "a GET announced too large": (
        request("GET", "/v1/models", b"Content-Length: 99999999999"),
        (413, "body_too_large"),
    ),
    "an announcement without end": (
        request("POST", "/generate", b"Content-Length: " + b"9" * 5000),
        PLAIN,
    ),
    "chunks too large together": (chunked(*[b" " * 65536] * 17), (413, "body_too_large")),
    "one chunk too large": (chunked(b" " * (MAX_BODY_BYTES + 1)), (413, "body_too_large")),
    "a header too large": (
        request("GET", "/v1/models", b"X-A: " + b"a" * MAX_HEADER_BYTES),
        (431, "headers_too_large"),
    ),
    "too many headers": (
        request("GET", "/v1/models", *[b"X-A: a"] * MAX_HEADERS),
        (431, "headers_too_large"),
    ),
    "a target too long": (
        request("GET", "/v1/models?" + "a" * MAX_TARGET_BYTES),
        (414, "target_too_long"),
    ),
    "a null in the query": (request("DELETE", "/admin/edits?name=a%00b"), REFUSED),
    # framing
    "two lengths": (
        request("POST", "/generate", b"Content-Length: 3", b"Content-Length: 4"),
        PLAIN,
    ),
    "a negative length": (request("POST", "/generate", b"Content-Length: -1"), PLAIN),
    "an unknown transfer": (request("POST", "/generate", b"Transfer-Encoding: gzip"), PLAIN),
    "a length beside chunks": (
        chunked(CAT).replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\n", 1)
        + request("GET", "/v1/models"),
        REFUSED,
    ),
    "a broken chunk": (chunked().replace(b"0\r\n\r\n", b"zz\r\n"), PLAIN),
    "no host": (b"GET /v1/models HTTP/1.1\r\n\r\n", PLAIN),
    "a null in a header": (request("GET", "/v1/models", b"X-A: a\x00b"), PLAIN),
    "a folded first header": (b"GET /v1/models HTTP/1.1\r\n X: 1\r\nHost: a\r\n\r\n", PLAIN),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", PLAIN),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (404, "plain")),
    # methods
    **{
        f"{method} of a POST route": (request(method), (405, "method_not_allowed"))
        for method in ("GET", "OPTIONS", "TRACE", "PATCH", "PUT", "BREW")
    },
    # paths
    **{
        f"the path {target!r}": (request("GET", target), ABSENT)
        for target in (
            "//v1/models",
            "/v1/models/",
            "/v1//models",
            "/V1/models",
            "/v1/models%00",
            "/v1/models;a=1",
            "/v1/../v1/models",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/..%2f..%2fetc%2fpasswd",
            "/\\..\\etc",
            "/%ff%fe",
        )
    },
    # BentoML's own words: it serves paths only.
    "an absolute target": (request("GET", "http://other.example/v1/models"), (404, "plain")),
    "a star": (request("OPTIONS", "*"), (404, "plain")),
}


@contextmanager
def bounded_growth(service: LiveService) -> Iterator[None]:
    """The service's processes may not grow."""
    before = resident(service)
    yield
    assert resident(service) - before < MAX_GROWTH


def resident(service: LiveService) -> int:
    parent = psutil.Process(service.process.pid)
    return sum(p.memory_info().rss for p in (parent, *parent.children(recursive=True)))


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_at_once_in_the_one_shape(live: LiveService, name: str) -> None:
    sent, (status, kind) = ATTACKS[name]
    started = time.monotonic()
    with bounded_growth(live):
        answer = exchange(live.url, sent)
    assert time.monotonic() - started < MAX_SECONDS
    assert (answer.status, answer.type) == (status, kind), answer
    if kind != "plain":
        assert answer.headers["x-request-id"]
    assert answer.status >= 400 and b"max_prompt_tokens" not in answer.body
    if status in (413, 414, 415, 431):
        assert answer.headers["connection"] == "close"
    if status == 405:
        assert answer.headers["allow"] == "POST"


def test_a_head_request_has_no_body(live: LiveService) -> None:
    answer = exchange(live.url, request("HEAD", "/generate", b"Connection: close"))
    assert (answer.status, answer.body) == (405, b"")


def test_a_chunked_body_without_a_length_is_drawn(live: LiveService) -> None:
    answer = exchange(live.url, chunked(CAT[:10], CAT[10:]))
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")


@pytest.mark.parametrize("path", ["/generate", "/livez"])
def test_headers_without_end_close_the_connection_and_are_not_kept(
    live: LiveService, path: str
) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: quickfix\r\n".encode()
    with bounded_growth(live):
        answer = exchange(live.url, head, *[b"X-A: " + b"a" * MEBIBYTE] * 64)
    assert answer.status in (0, 400)


def test_after_all_of_it_the_service_draws_and_its_log_holds_no_traceback(
    live: LiveService,
) -> None:
    for sent, _expected in ATTACKS.values():
        exchange(live.url, sent)
    answer = exchange(live.url, request(body=CAT))
    assert answer.status == 200
    assert exchange(live.url, request("GET", "/readyz")).status == 200
    assert "Traceback" not in live.log.read_text(encoding="utf-8")


@pytest.fixture
def hasty(replica: Replica) -> Iterator[str]:
    """A real server of the same app whose bodies have half a second."""
    api, _edge = create_api()
    api.state.runtime = replica.runtime
    config = uvicorn.Config(Edge(api, body_seconds=0.5), port=0, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    (listening,) = server.servers[0].sockets
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize(
    ("target", "headers"),
    [("/generate", ()), ("/admin/rollback", ("token",)), ("/admin/edits", ("token",))],
)
def test_a_body_that_trickles_in_is_given_up(
    hasty: str, replica: Replica, target: str, headers: tuple[str, ...]
) -> None:
    token = replica.operator["Authorization"].encode()
    extra = [b"Authorization: " + token] if headers else []
    head = request(
        "POST", target, *extra, b"Content-Type: application/json", b"Content-Length: 1000"
    )
    started = time.monotonic()
    answer = exchange(hasty, head, *[b"{"] * 8, pause=0.1)
    assert (answer.status, answer.type) == (408, "body_too_slow")
    assert answer.headers["connection"] == "close"
    assert 0.4 < time.monotonic() - started < MAX_SECONDS


def test_a_slow_client_that_is_fast_enough_is_served(hasty: str) -> None:
    head = request("POST", "/generate", b"Content-Type: application/json", b"Content-Length: 42")
    assert len(CAT) == 42
    assert exchange(hasty, head, CAT[:20], CAT[20:], pause=0.05).status == 200
