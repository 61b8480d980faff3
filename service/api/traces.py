"""Routes with a token for causal traces: start, watch, read, stop, delete.

Ids are query parameters: BentoML's HTTP metrics would keep a series for every path.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from service.api.audited import AuditedRoute, note
from service.api.context import Operator, Running, Viewer
from service.api.json_text import read_json
from service.api.schemas import TraceBody
from service.errors import RequestInvalid
from service.tracing import Trace

__all__ = ["router"]

router = APIRouter(prefix="/admin", tags=["admin"], route_class=AuditedRoute)

_ID = Query(alias="id", min_length=1, max_length=64)
Id = Annotated[str, _ID]
AnyId = Annotated[str | None, _ID]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": TraceBody.model_json_schema()}},
    }
}


async def _trace_body(request: Request) -> tuple[TraceBody, bytes | None]:
    """The body, and its prompts as a document. Parsed here, not by FastAPI: first the token."""
    try:
        body = TraceBody.model_validate(read_json(await request.body()))
        return body, body.document()
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        # Behind `prompts` pydantic names the kinds that it tried, which are no fields.
        path = first["loc"][:1] if first["loc"][:1] == ("prompts",) else first["loc"]
        param = ".".join(str(part) for part in path) or None
        raise RequestInvalid(f"{param or 'the body'}: {first['msg']}", param=param) from None


@router.post(
    "/traces",
    status_code=202,
    openapi_extra=_BODY,
    responses={200: {"description": "It runs already, or is finished"}},
)
def start_trace(
    *,
    _caller: Operator,
    body: Annotated[tuple[TraceBody, bytes | None], Depends(_trace_body)],
    request: Request,
    runtime: Running,
) -> Response:
    """Check a trace and start it, or go on with it; one that runs or is finished is answered."""
    fields, prompts = body
    checked = runtime.trace_check(
        fields.options(), attributes=fields.attributes, pairs=fields.pairs, prompts=prompts
    )
    note(request, target=checked.id, traced=checked.options.target)
    trace, started = runtime.traces.start(checked)
    return JSONResponse(_document(trace), 202 if started else 200)


@router.get("/traces")
def read_traces(
    *, _caller: Viewer, request: Request, runtime: Running, trace: AnyId = None
) -> dict[str, Any]:
    """All traces, the one that was started last first; with an id that one and its result."""
    if trace is None:
        return {"traces": [_document(known) for known in runtime.traces.jobs()]}
    note(request, target=trace)
    found = runtime.traces.find(trace)
    result = runtime.traces.result(trace) if found.state == "finished" else None
    return {**_document(found), "result": result}


@router.delete("/traces")
def remove_trace(
    *, _caller: Operator, request: Request, runtime: Running, trace: Id
) -> dict[str, Any]:
    """Stop a trace that runs; delete one that does not run, with its result."""
    note(request, target=trace)
    return _document(runtime.traces.remove(trace))


def _document(trace: Trace) -> dict[str, Any]:
    return {
        "id": trace.id,
        "state": trace.state,
        "target": trace.target,
        "started_at": trace.started_at,
        "pictures": {"done": trace.progress.done, "total": trace.progress.total},
        "error": trace.error,
    }
