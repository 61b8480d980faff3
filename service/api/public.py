"""Routes of clients: OpenAI's images, BentoML's style of the same, and the model's card.

They need an API key where the service has a file of them, and nothing where it has none.
"""

import asyncio
import base64
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from edits.errors import QuickFixError
from service import metrics
from service.api.api_keys import identify, policy_of
from service.api.context import Key, Running, request_id_of, runtime_of
from service.api.json_text import JsonRequest
from service.api.schemas import GenerateBody, ImageItem, ImagesAnswer, ImagesBody
from service.errors import Cancelled, DeadlineExceeded, describe
from service.generation.provenance import encode_image, stamp
from service.generation.queue import CancelCause
from service.generation.request import Generated, GenerationRequest
from service.runtime import Runtime

__all__ = ["router"]

_OUTCOMES = {429: "rejected", 503: "rejected", 499: "cancelled", 504: "cancelled"}


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
    """Counts and times every request by its outcome, refused ones too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler inside the measurement."""
        handler = super().get_route_handler()

        async def measured(request: Request) -> Response:
            started = time.perf_counter()
            outcome = "cancelled"  # what stays when the server's own timer cancels the task
            try:
                response = await handler(request)
                outcome = "ok"
                return response
            except Exception as error:
                outcome = _outcome(error)
                raise
            finally:
                metrics.REQUESTS.labels(outcome).inc()
                metrics.REQUEST_SECONDS.labels(outcome).observe(time.perf_counter() - started)

        return measured


router = APIRouter(tags=["generation"], route_class=KeyedRoute)
_measured = APIRouter(route_class=MeasuredRoute)


@_measured.post("/v1/images/generations")
async def generate_images(
    body: ImagesBody, request: Request, response: Response, runtime: Running, key: Key
) -> ImagesAnswer:
    """OpenAI's Images request; image i of n is drawn from seed + i."""
    policy = policy_of(key, body.policy)
    wanted = body.request(runtime.model, policy=policy, images=body.n or 1)
    generated = await _draw(runtime, wanted, request)
    headers = stamp(generated, request_id_of(request))
    kind = body.output_format or "png"
    files = await run_in_threadpool(
        lambda: [encode_image(image, kind, headers) for image in generated.images]
    )
    response.headers.update(headers)
    return ImagesAnswer(
        created=int(time.time()),
        data=[
            ImageItem(b64_json=base64.b64encode(file).decode(), seed=seed)
            for file, seed in zip(files, wanted.seeds, strict=True)
        ],
        output_format=kind,
        size=f"{wanted.width}x{wanted.height}",
    )


@_measured.post(
    "/generate", response_class=Response, responses={200: {"content": {"image/png": {}}}}
)
async def generate_png(
    body: GenerateBody, request: Request, runtime: Running, key: Key
) -> Response:
    """JSON in, one PNG out."""
    wanted = body.request(runtime.model, policy=policy_of(key, body.policy))
    generated = await _draw(runtime, wanted, request)
    headers = stamp(generated, request_id_of(request))
    png = await run_in_threadpool(encode_image, generated.images[0], "png", headers)
    headers["X-QuickFix-Seed"] = str(generated.request.seeds[0])
    return Response(png, media_type="image/png", headers=headers)


@router.get("/v1/models")
def list_models(runtime: Running) -> dict[str, Any]:
    """The one model of this process, in OpenAI's list shape."""
    model = runtime.model
    card = {
        "id": model.name,
        "object": "model",
        "created": int(runtime.started_at.timestamp()),
        "owned_by": "quickfix",
        "layout": model.layout,
        "fingerprint": model.editor.fingerprint,
        "safety_checker": model.has_safety_checker,
        "backend": runtime.settings.backend,
        "device": str(model.device),
        "dtype": runtime.settings.dtype,
        "size": f"{model.sizes.native}x{model.sizes.native}",
        "max_prompt_tokens": runtime.prompts.token_limit,
        "steps": model.defaults.steps,
        "guidance_scale": model.defaults.guidance_scale,
    }
    return {"object": "list", "data": [card]}


async def _draw(runtime: Runtime, wanted: GenerationRequest, request: Request) -> Generated:
    """Wait for the images; a client that leaves, and time that runs out, stop the work."""
    # Off the event loop: a long prompt of rare characters takes a second to normalise and tokenise.
    check = runtime.prompts.check
    await asyncio.to_thread(check, wanted.prompt, param="prompt")
    await asyncio.to_thread(check, wanted.negative_prompt, param="negative_prompt")
    job = runtime.engine.submit(wanted)
    drawn = asyncio.wrap_future(job.future)
    left = asyncio.ensure_future(_client_left(request))
    either: set[asyncio.Future[Any]] = {drawn, left}
    sent = False
    cause: CancelCause = "deadline"  # also when the server's own timer cancels this task
    try:
        await asyncio.wait(
            either,
            timeout=job.deadline - time.monotonic(),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if drawn.done():
            generated = drawn.result()
            sent = True  # its revision runs until the answer has left: the edge says when
            request.state.on_sent = job.release
            return generated
        if left.done():
            cause = "client_left"
            raise Cancelled("the client left")
        raise DeadlineExceeded("the request's deadline has passed")
    finally:
        left.cancel()
        runtime.engine.abandon(job, cause)
        drawn.cancel()
        if not sent:
            job.release()


async def _client_left(request: Request) -> None:
    """Return when the client closes its connection; the body has been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _outcome(error: Exception) -> str:
    if isinstance(error, RequestValidationError | HTTPException):
        return "invalid"
    status = describe(error).status if isinstance(error, QuickFixError) else 500
    return _OUTCOMES.get(status, "invalid" if status < 500 else "failed")


router.include_router(_measured)
