"""A request's timer ends with it, and with it all that the request's context holds."""

import asyncio
import contextvars
import gc
import importlib.util
import weakref
from types import SimpleNamespace

import httpx
import pytest
from bentoml._internal.server.base_app import BaseAppFactory
from starlette.responses import PlainTextResponse

import service.app  # noqa: F401 - it puts ours in the place of BentoML's
from service.request_timer import RequestTimer

SPAN: contextvars.ContextVar[object] = contextvars.ContextVar("span")


class _Span:
    """What tracing leaves in a request's context."""


async def spans_that_stay(timer: type, requests: int = 300) -> int:
    """How many of the requests' spans are alive once all are answered."""
    spans = []

    async def app(scope, receive, send):
        await PlainTextResponse("done")(scope, receive, send)

    async def traced(scope, receive, send):
        span = _Span()
        spans.append(weakref.ref(span))
        SPAN.set(span)
        await timed(scope, receive, send)

    timed = timer(app, timeout=630.0)
    transport = httpx.ASGITransport(app=traced)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for _ in range(requests):
            answer = await asyncio.create_task(client.get("/"))
            assert answer.status_code == 200
    gc.collect()
    return sum(span() is not None for span in spans)


def bentomls_own() -> type:
    """Of a copy of its module in which nothing was replaced."""
    spec = importlib.util.find_spec("bentoml._internal.server.http.traffic")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.TimeoutMiddleware


def test_300_answered_requests_leave_at_most_the_timers_that_asyncio_has_not_swept() -> None:
    """It sweeps cancelled ones once there are more than a hundred."""
    assert asyncio.run(spans_that_stay(RequestTimer)) <= 110


def test_bentomls_own_keeps_what_each_of_them_held() -> None:
    """Once this fails, ours has no reason to be."""
    assert asyncio.run(spans_that_stay(bentomls_own())) == 300


def test_bentoml_builds_its_app_with_it() -> None:
    built = BaseAppFactory.middlewares.fget(SimpleNamespace(timeout=1.0, max_concurrency=None))
    assert [middleware.cls for middleware in built] == [RequestTimer]


async def get(app, timeout: float) -> httpx.Response:
    transport = httpx.ASGITransport(app=RequestTimer(app, timeout=timeout))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.get("/")


def test_a_request_without_an_answer_in_time_is_stopped_with_504() -> None:
    stopped = []

    async def hangs(scope, receive, send):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stopped.append(True)
            raise

    answer = asyncio.run(get(hangs, timeout=0.05))
    assert (answer.status_code, stopped) == (504, [True])
    assert answer.json() == {"error": "no answer within 0.05 seconds"}


@pytest.mark.parametrize("goes_on", [True, False])
def test_what_a_stopped_app_still_says_is_not_sent_beside_the_504(goes_on) -> None:
    async def answers_when_stopped(scope, receive, send):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await PlainTextResponse("late")(scope, receive, send)
            if not goes_on:
                raise

    answer = asyncio.run(get(answers_when_stopped, timeout=0.05))
    assert (answer.status_code, "late" in answer.text) == (504, False)


def test_an_answer_that_has_begun_may_take_longer_than_the_timeout() -> None:
    async def slow(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await asyncio.sleep(0.2)
        await send({"type": "http.response.body", "body": b"late"})

    assert asyncio.run(get(slow, timeout=0.05)).content == b"late"


def test_a_timeout_of_the_app_itself_is_not_taken_for_the_timers() -> None:
    async def raises(scope, receive, send):
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        asyncio.run(get(raises, timeout=5.0))
