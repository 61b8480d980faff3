"""An answer as server-sent events, in the shape of OpenAI's image streams.

The status line waits for the job to begin, so what is refused, or fails before, has a status of
its own. An urgent activation starts a job over under another revision: each event names its own.
"""

import base64
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from fastapi.sse import EventSourceResponse, format_sse_event
from PIL.Image import Image
from starlette.concurrency import run_in_threadpool

from edits.errors import QuickFixError
from service.api.awaited import Awaited
from service.api.context import request_id_of
from service.api.edge import log_failure
from service.api.measured import Measurement
from service.errors import Cancelled, describe, wire_body
from service.generation.job import Began, Event, Previewed, Stepped
from service.generation.provenance import ImageFormat, encode_image, stamp
from service.generation.request import Generated, GenerationRequest

__all__ = ["stream_images"]


async def stream_images(
    awaited: Awaited, wanted: GenerationRequest, kind: ImageFormat, request: Request
) -> EventSourceResponse:
    """The response, once the job has begun. Raises what `Awaited` raises."""
    events = awaited.events()
    began = await anext(events, None)
    if not isinstance(began, Began):
        await awaited.result()  # it ended before it began: raises why
        raise AssertionError("a job that has an answer has begun")
    measurement: Measurement = request.state.measurement

    def over() -> None:
        measurement.end(Cancelled("the client left"))  # unless it has ended in another way
        awaited.close()

    request.state.on_sent = over  # a stream that is cut off raises nowhere that is ours
    messages = _Messages(wanted, kind, request_id_of(request), began)
    return EventSourceResponse(
        _body(messages, events, awaited, measurement),
        headers={**stamp(began, request_id_of(request)), "Cache-Control": "no-store"},
    )


async def _body(
    messages: "_Messages",
    events: AsyncIterator[Event],
    awaited: Awaited,
    measurement: Measurement,
) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            async for message in messages.of(event):
                yield message
        async for message in messages.completed(await awaited.result()):
            yield message
        measurement.end()
    except Exception as error:  # noqa: BLE001 - the status has been sent: this is its last word
        measurement.end(error)
        if not isinstance(error, QuickFixError):
            log_failure(messages.request_id, error)
        yield _encode("error", wire_body(describe(error)))


class _Messages:
    """Events of one job as they go over the wire."""

    def __init__(
        self, wanted: GenerationRequest, kind: ImageFormat, request_id: str, began: Began
    ) -> None:
        self._wanted = wanted
        self._kind = kind
        self.request_id = request_id
        self._drawn_under: Began | Generated = began

    async def of(self, event: Event) -> AsyncIterator[bytes]:
        match event:
            case Began():
                self._drawn_under = event
            case Stepped(index, taken, steps):
                yield self._message("progress", index=index, step=taken, steps=steps)
            case Previewed(_, index, number, picture, taken, steps):
                yield self._message(
                    "partial_image",
                    **await self._file(picture),
                    partial_image_index=number,
                    index=index,
                    step=taken,
                    steps=steps,
                )

    async def completed(self, generated: Generated) -> AsyncIterator[bytes]:
        self._drawn_under = generated
        seeds = generated.request.seeds
        for index, (picture, seed) in enumerate(zip(generated.images, seeds, strict=True)):
            yield self._message("completed", **await self._file(picture), index=index, seed=seed)

    async def _file(self, picture: Image) -> dict[str, Any]:
        text = stamp(self._drawn_under, self.request_id)
        file = await run_in_threadpool(encode_image, picture, self._kind, text)
        return {
            "b64_json": base64.b64encode(file).decode(),
            "background": "opaque",
            "output_format": self._kind,
            "quality": "auto",
            "size": f"{self._wanted.width}x{self._wanted.height}",
        }

    def _message(self, name: str, **fields: Any) -> bytes:
        kind = f"image_generation.{name}"
        under = self._drawn_under
        document = {
            "type": kind,
            "created_at": int(time.time()),
            "revision": under.revision,
            "digest": under.digest,
            **fields,
        }
        return _encode(kind, document)


def _encode(name: str, document: dict[str, Any]) -> bytes:
    return format_sse_event(event=name, data_str=json.dumps(document, separators=(",", ":")))
