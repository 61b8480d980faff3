"""Routes of clients: OpenAI's images, BentoML's style of the same, and the model's card.

They need an API key where the service has a file of them, and nothing where it has none.
"""

import base64
import time
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from service.api.api_keys import policy_of
from service.api.awaited import Awaited
from service.api.context import Key, Running, request_id_of
from service.api.measured import KeyedRoute, MeasuredRoute
from service.api.schemas import GenerateBody, ImageItem, ImagesAnswer, ImagesBody
from service.api.streaming import stream_images
from service.generation.provenance import encode_image, stamp
from service.generation.schedulers import SCHEDULERS

__all__ = ["router"]

router = APIRouter(tags=["generation"], route_class=KeyedRoute)
_measured = APIRouter(route_class=MeasuredRoute)


@_measured.post(
    "/v1/images/generations",
    response_model=ImagesAnswer,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def generate_images(
    body: ImagesBody, request: Request, response: Response, runtime: Running, key: Key
) -> ImagesAnswer | Response:
    """OpenAI's Images request; image i of n is drawn from seed + i. A stream with `stream`."""
    wanted = body.request(runtime.model, policy=policy_of(key, body.policy))
    kind = body.output_format or "png"
    awaited = await Awaited.admitted(runtime, request, wanted)
    if body.stream:
        return await stream_images(awaited, wanted, kind, request)
    generated = await awaited.result()
    headers = stamp(generated, request_id_of(request))
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
    generated = await (await Awaited.admitted(runtime, request, wanted)).result()
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
        "backend": runtime.backend.name,
        "provider": runtime.backend.provider,
        "device": str(model.device),
        "dtype": runtime.settings.dtype,
        "size": f"{model.sizes.native}x{model.sizes.native}",
        "max_prompt_tokens": runtime.prompts.token_limit,
        "steps": model.defaults.steps,
        "schedulers": list(SCHEDULERS),
        "guidance_scale": model.defaults.guidance_scale,
    }
    return {"object": "list", "data": [card]}


router.include_router(_measured)
