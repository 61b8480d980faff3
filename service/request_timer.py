"""BentoML's timer of each request, ended with it.

bentoml 1.4's own goes on after the answer, for as long as the longest request may take, and holds
the request's context meanwhile, a span of its tracing among it.
"""

import asyncio

from bentoml._internal.server.http import traffic
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["RequestTimer", "end_timers_with_requests"]


class RequestTimer:
    """Answers 504 to a request whose answer has not begun in time, and stops it."""

    def __init__(self, app: ASGIApp, timeout: float) -> None:
        self._app = app
        self._seconds = timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and stop waiting once its answer begins."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def begin(message: Message) -> None:
            if not limit.expired():  # what a stopped app still says is no answer
                limit.reschedule(None)
                await send(message)

        try:
            async with asyncio.timeout(self._seconds) as limit:
                await self._app(scope, receive, begin)
        except TimeoutError:
            if not limit.expired():
                raise
        if limit.expired():
            text = f"no answer within {self._seconds:g} seconds"
            await JSONResponse({"error": text}, status_code=504)(scope, receive, send)


def end_timers_with_requests() -> None:
    """Let BentoML take RequestTimer. Call it before BentoML makes its app."""
    traffic.TimeoutMiddleware = RequestTimer
