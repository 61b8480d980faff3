"""What a request may measure before anything of it is parsed: address, headers, body, time.

What is over it is refused by the edge, whichever route was meant.
"""

import asyncio
import time

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope

__all__ = [
    "MAX_BODY_BYTES",
    "MAX_BODY_SECONDS",
    "MAX_HEADERS",
    "MAX_HEADER_BYTES",
    "MAX_TARGET_BYTES",
    "bounded_body",
    "refuse_head",
]

MAX_BODY_BYTES = 1024 * 1024
MAX_BODY_SECONDS = 20.0  # from the first read to the last byte
MAX_TARGET_BYTES = 8 * 1024  # path and query
MAX_HEADER_BYTES = 16 * 1024  # all names and values
MAX_HEADERS = 100

# What is left of the body must not be taken for the next request, nor be waited for.
_CLOSE = {"Connection": "close"}


def refuse_head(scope: Scope) -> None:
    """Raise HTTPException for a request whose first part alone is refused."""
    target = len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))
    if target > MAX_TARGET_BYTES:
        raise HTTPException(414, f"path and query are over {MAX_TARGET_BYTES} bytes", _CLOSE)
    if b"%00" in scope.get("query_string", b""):  # which PostgreSQL cannot store
        raise HTTPException(400, "a null character stands in the query", _CLOSE)
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > MAX_HEADERS:
        raise HTTPException(431, f"there are over {MAX_HEADERS} headers", _CLOSE)
    if sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
        raise HTTPException(431, f"the headers are over {MAX_HEADER_BYTES} bytes", _CLOSE)
    names = {name for name, _value in headers}
    if {b"content-length", b"transfer-encoding"} <= names:
        # A proxy that goes by the length and a server that goes by the chunks see two requests.
        raise HTTPException(400, "Content-Length beside Transfer-Encoding is refused", _CLOSE)
    for name, value in headers:
        if name == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise HTTPException(415, "a body is taken as it is: send no Content-Encoding", _CLOSE)
        if name == b"content-length" and _announced(value) > MAX_BODY_BYTES:
            raise _too_large()


def bounded_body(receive: Receive, *, seconds: float) -> Receive:
    """`receive` that raises HTTPException once the body is too large, or has taken too long.

    After the body it only waits for the client to leave, for as long as that takes.
    """
    seen = 0
    deadline: float | None = None
    complete = False

    async def bounded() -> Message:
        nonlocal seen, deadline, complete
        if complete:
            return await receive()
        if deadline is None:
            deadline = time.monotonic() + seconds
        try:
            message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise HTTPException(
                408, f"the body did not come within {seconds:g} s", _CLOSE
            ) from None
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            raise _too_large()
        complete = not message.get("more_body", False)
        return message

    return bounded


def _announced(value: bytes) -> int:
    """The bytes that a Content-Length announces; the server has refused what is no number."""
    return int(value[:20]) if value.isdigit() else 0


def _too_large() -> HTTPException:
    return HTTPException(413, f"the body is over {MAX_BODY_BYTES} bytes", _CLOSE)
