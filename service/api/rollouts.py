"""Routes with a token for the rollout that is going on: look, promote now, halt."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from edits.store import Rollout
from service.api.audited import AuditedRoute, note
from service.api.context import FenceSeconds, Operator, Running, Viewer, json_body
from service.api.schemas import ReasonBody, RolloutAnswer

__all__ = ["router"]

router = APIRouter(prefix="/admin", tags=["admin"], route_class=AuditedRoute)

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ReasonBody.model_json_schema()}},
    }
}

_PROMOTED: dict[int | str, dict[str, Any]] = {
    200: {"model": RolloutAnswer},
    202: {"model": RolloutAnswer, "description": "The head; an older revision still runs"},
}


async def _reason(request: Request) -> str:
    body = await json_body(request, ReasonBody, shape="{'reason': ...}")
    return body.reason


Reason = Annotated[str, Depends(_reason)]


@router.get("/rollout", response_model=RolloutAnswer, response_model_exclude_unset=True)
def read_rollout(_caller: Viewer, runtime: Running) -> dict[str, Any]:
    """The rollout that is going on, or else the last one."""
    rollout = runtime.store.rollouts.newest()
    return {"rollout": None if rollout is None else rollout.document()}


@router.post("/rollout/promote", openapi_extra=_BODY, responses=_PROMOTED)
def promote_rollout(
    *,
    caller: Operator,
    reason: Reason,
    request: Request,
    runtime: Running,
    wait: FenceSeconds = None,
) -> Response:
    """Make the revision on trial the head now; with `wait`, answer after the fence."""
    rollout, fence = runtime.publisher.promote(reason=reason or f"by {caller.name}", seconds=wait)
    _note(request, rollout, reason)
    document: dict[str, Any] = {"rollout": rollout.document()}
    if fence is not None:
        document["fence"] = fence.document()
    return JSONResponse(document, 200 if fence is None or fence.closed else 202)


@router.post(
    "/rollout/halt",
    openapi_extra=_BODY,
    response_model=RolloutAnswer,
    response_model_exclude_unset=True,
)
def halt_rollout(
    *, caller: Operator, reason: Reason, request: Request, runtime: Running
) -> dict[str, Any]:
    """Take the revision on trial back: its canaries run the head again."""
    rollout = runtime.publisher.halt(reason=reason or f"by {caller.name}")
    _note(request, rollout, reason)
    return {"rollout": rollout.document()}


def _note(request: Request, rollout: Rollout, reason: str) -> None:
    note(request, target=f"revision {rollout.revision}", reason=reason)
