"""The outermost layer of the HTTP app: request ids, the body limit, and the last catch.

Plain ASGI, because a wrapper that buffers would hide the client's disconnect from the routes.
"""

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["MAX_BODY_BYTES", "Edge"]

MAX_BODY_BYTES = 1024 * 1024

_log = logging.getLogger("quickfix.http")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Edge:
    """Gives each request an id, refuses bodies over 1 MiB, keeps tracebacks out of the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        answered = False

        async def send_with_id(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)
            if message["type"] == "http.response.body":
                answered = not message.get("more_body", False)

        try:
            limited = _limited(receive, headers.get("content-length"))
            await self._app(scope, limited, send_with_id)
        except Exception as error:
            # The app has answered 500 and raises again for the server's log. A traceback there
            # may hold a prompt or a path: the log gets the class and the place, no more.
            _log.error("failed request_id=%s error=%s at=%s", request_id, *_place(error))
            if not answered:
                raise
        finally:
            # What a route wants done once its answer has left, or the client has.
            if (on_sent := scope["state"].get("on_sent")) is not None:
                on_sent()


def _request_id(headers: Headers) -> str:
    """The caller's id where it is a plain token, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _limited(receive: Receive, content_length: str | None) -> Receive:
    """`receive` that raises 413 once more than MAX_BODY_BYTES have come or are announced."""
    announced = int(content_length) if content_length and content_length.isdigit() else 0
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        if announced > MAX_BODY_BYTES:
            raise _too_large()
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            raise _too_large()
        return message

    return counted


def _too_large() -> HTTPException:
    return HTTPException(413, f"the body is over {MAX_BODY_BYTES} bytes")


def _place(error: Exception) -> tuple[str, str]:
    """Class of an error and the function that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "?" if trace is None else f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
    return type(error).__name__, place
