"""How long generation requests take, and how they end; refused ones count too."""

import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.sse import EventSourceResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from edits.errors import QuickFixError
from service import metrics
from service.api.api_keys import identify
from service.api.context import runtime_of
from service.api.json_text import JsonRequest
from service.errors import Cancelled, describe

__all__ = ["KeyedRoute", "MeasuredRoute", "Measurement"]

_OUTCOMES = {429: "rejected", 503: "rejected", 499: "cancelled", 504: "cancelled"}


class Measurement:
    """One request from its arrival to its end."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._ended = False

    def end(self, error: Exception | None = None) -> None:
        """Count it, by the error that ended it. Only the first call counts."""
        if self._ended:
            return
        self._ended = True
        outcome = "ok" if error is None else _outcome(error)
        metrics.REQUESTS.labels(outcome).inc()
        metrics.REQUEST_SECONDS.labels(outcome).observe(time.perf_counter() - self._started)


class KeyedRoute(APIRoute):
    """Asks for the API key before anything of the body is read, and reads it strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler behind the key."""
        handler = super().get_route_handler()

        async def keyed(request: Request) -> Response:
            keys = runtime_of(request).api_keys
            request.state.api_key = None
            if keys is not None:
                given = request.headers.get("authorization")
                # Off the event loop: it may read a file.
                request.state.api_key = await run_in_threadpool(identify, keys, given)
            return await handler(JsonRequest(request.scope, request.receive))

        return keyed


class MeasuredRoute(KeyedRoute):
    """Measures every request; a stream of events goes on when the handler has returned."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler inside the measurement."""
        handler = super().get_route_handler()

        async def measured(request: Request) -> Response:
            measurement = request.state.measurement = Measurement()
            gone = Cancelled("the server's own timer, or the client, has ended the request")
            try:
                response = await handler(request)
            except Exception as error:
                measurement.end(error)
                raise
            except BaseException:
                measurement.end(gone)
                raise
            if not isinstance(response, EventSourceResponse):
                measurement.end()
            return response

        return measured


def _outcome(error: Exception) -> str:
    if isinstance(error, RequestValidationError | HTTPException):
        return "invalid"
    status = describe(error).status if isinstance(error, QuickFixError) else 500
    return _OUTCOMES.get(status, "invalid" if status < 500 else "failed")
