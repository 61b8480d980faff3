"""Routes with a token for policies: list, define, take out. Each change is a new revision."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from service.api.audited import AuditedRoute, note
from service.api.context import (
    ExpectedHead,
    HowDelivered,
    Operator,
    Running,
    Viewer,
    json_body,
)
from service.api.schemas import PolicyAnswer, PolicyBody
from service.delivery import Published
from service.errors import NotReady

__all__ = ["router"]

router = APIRouter(prefix="/admin", tags=["admin"], route_class=AuditedRoute)

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": PolicyBody.model_json_schema()}},
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": PolicyAnswer},
    202: {
        "model": PolicyAnswer,
        "description": "Published; on trial, or an older one still runs",
    },
}


async def _policy_body(request: Request) -> PolicyBody:
    return await json_body(request, PolicyBody, shape="{'name': ..., 'edits': [...]}")


@router.get("/policies")
def list_policies(_caller: Viewer, runtime: Running) -> dict[str, Any]:
    """The policies that this replica runs, and the edits of each."""
    active = runtime.activator.active
    if active is None:
        raise NotReady("no revision is active on this replica")
    return {
        "revision": active.revision,
        "digest": active.digest,
        "policies": {name: list(edits) for name, edits in active.built.content.policies.items()},
    }


@router.put("/policies", openapi_extra=_BODY, responses=_ANSWERS)
def define_policy(
    *,
    caller: Operator,
    body: Annotated[PolicyBody, Depends(_policy_body)],
    request: Request,
    runtime: Running,
    delivery: HowDelivered,
    expected_head: ExpectedHead = None,
) -> Response:
    """Publish and activate a revision in which that policy holds exactly those edits."""
    note(request, target=body.name, reason=body.reason)
    published = runtime.publisher.define_policy(
        body.name,
        tuple(body.edits),
        author=caller.name,
        reason=body.reason,
        expected_head=expected_head,
        delivery=delivery,
    )
    return _answer(request, published, body.name)


@router.delete("/policies", responses=_ANSWERS)
def remove_policy(
    *,
    caller: Operator,
    request: Request,
    runtime: Running,
    name: Annotated[str, Query(min_length=1, max_length=63)],
    delivery: HowDelivered,
    expected_head: ExpectedHead = None,
) -> Response:
    """Publish and activate a revision without that policy."""
    note(request, target=name)
    published = runtime.publisher.remove_policy(
        name, author=caller.name, expected_head=expected_head, delivery=delivery
    )
    return _answer(request, published, name)


def _answer(request: Request, published: Published, name: str) -> Response:
    revision = published.revision
    note(request, revision=revision.number)
    policies = published.built.content.policies
    answer = PolicyAnswer(
        revision=revision.number,
        digest=revision.digest,
        name=name,
        policies={policy: list(edits) for policy, edits in policies.items()},
        activation_ms=round(published.activation_seconds * 1000, 3),
        fence=published.fence_document,
        rollout=published.rollout_document,
    )
    return JSONResponse(answer.model_dump(exclude_none=True), 202 if published.late else 200)
