"""The outermost layer of the HTTP app: request ids, the limits, and the last catch.

Plain ASGI, because a wrapper that buffers would hide the client's disconnect from the routes.
"""

import logging
import re
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.answers import http_problem
from service.api.limits import MAX_BODY_SECONDS, bounded_body, refuse_head

__all__ = ["Edge", "log_failure"]

_log = logging.getLogger("quickfix.http")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Edge:
    """Gives each request an id, refuses what is over a limit, keeps tracebacks out of the log."""

    def __init__(self, app: ASGIApp, *, body_seconds: float = MAX_BODY_SECONDS) -> None:
        self._app = app
        self._body_seconds = body_seconds

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
            refuse_head(scope)
            body = bounded_body(receive, seconds=self._body_seconds)
            await self._app(scope, body, send_with_id)
        except HTTPException as refused:
            await http_problem(refused)(scope, receive, send_with_id)
        except Exception as error:
            # The app has answered 500 and raises again for the server's log.
            log_failure(request_id, error)
            if not answered:
                raise
        finally:
            # What a route wants done once its answer has left, or the client has. Taken out: what
            # it holds, the images among it, would be in a cycle with the request's own state.
            if (on_sent := scope["state"].pop("on_sent", None)) is not None:
                on_sent()


def _request_id(headers: Headers) -> str:
    """The caller's id where it is a plain token, else a new one."""
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def log_failure(request_id: str, error: Exception) -> None:
    """Class and place only: a traceback may hold a prompt or a path."""
    _log.error("failed request_id=%s error=%s at=%s", request_id, *_place(error))


def _place(error: Exception) -> tuple[str, str]:
    """Class of an error and the function that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "?" if trace is None else f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
    return type(error).__name__, place
