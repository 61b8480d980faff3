"""The BentoML service: wiring only. `/livez`, `/readyz` and `/metrics` are BentoML's own."""

import gc
import logging

import bentoml
from starlette.types import ASGIApp, Receive, Scope, Send

from service.allocator import settle_allocator
from service.draining import drain_on_sigterm
from service.own_thread import in_own_thread
from service.request_timer import end_timers_with_requests
from service.settings import MAX_REQUEST_SECONDS, Settings
from service.worker_watch import end_with_worker

__all__ = ["QuickFix"]

settle_allocator()  # before there is a thread that an arena of its own was made for
end_timers_with_requests()


class _Edge:
    """The HTTP app, once a worker has made it.

    BentoML's parent process imports this module for its configuration alone: with torch it would
    start its worker ten seconds later, and hold half a gigabyte for nothing.
    """

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


_edge = _Edge()


# One worker: an admin call reaches one process. BentoML's timer only backs up the engine's own
# deadlines.
@bentoml.service(
    name="quickfix",
    workers=1,
    traffic={"timeout": MAX_REQUEST_SECONDS + 30},
    metrics={"enabled": True},
)
@bentoml.asgi_app(_edge, path="/")
class QuickFix:
    """Generates images from a Stable-Diffusion-family model whose text encoder is edited live."""

    @bentoml.on_deployment  # type: ignore[untyped-decorator] # BentoML has no types
    @staticmethod
    def before_the_worker() -> None:
        """In the parent process: settings that are wrong end it with a message of their own."""
        Settings.from_env()
        end_with_worker()

    def __init__(self) -> None:
        # BentoML shows its own loggers from INFO and all others from WARNING.
        logging.getLogger("quickfix").setLevel(logging.INFO)
        from service.api.app import create_api  # noqa: PLC0415 - loads torch
        from service.runtime import Runtime  # noqa: PLC0415 - loads torch

        api, _edge.app = create_api()
        self._runtime = in_own_thread(lambda: Runtime.start(Settings.from_env()))
        api.state.runtime = self._runtime
        drain_on_sigterm(self._runtime.drain)
        # What a loaded model consists of stays: searches for cycles that look through it all are
        # rare, take the interpreter for long, and let what requests leave pile up meanwhile.
        gc.collect()
        gc.freeze()

    # On the event loop, which is BentoML's way with coroutines: a plain function would wait for a
    # thread, and calls that hang on the store may hold them all.
    async def __is_ready__(self) -> bool:
        return self._runtime.ready

    async def __is_alive__(self) -> bool:
        return self._runtime.alive

    @bentoml.on_shutdown  # type: ignore[untyped-decorator] # BentoML has no types
    def stop(self) -> None:
        """End what is left; on SIGTERM it has been drained before."""
        self._runtime.stop()
