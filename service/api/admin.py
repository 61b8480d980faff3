"""Routes with a token: edits, revisions, roll back, status and audit.

Every route is a plain function, so that it runs off the event loop; every call, a refused one
too, ends in the store's audit log.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse

from edits.manifests import RevisionContent, canonical_json, parse_manifest
from edits.store import Anchor, RevisionRecord
from service.api.audited import AuditedRoute, note
from service.api.context import (
    Before,
    ExpectedHead,
    HowDelivered,
    Operator,
    Running,
    Viewer,
    json_body,
)
from service.api.schemas import DryRunAnswer, EditAnswer, RollbackBody, SignedSetBody, edit_report
from service.api.status import status_document
from service.delivery import Published
from service.errors import NotReady, RequestInvalid

__all__ = ["router"]

router = APIRouter(prefix="/admin", tags=["admin"], route_class=AuditedRoute)

_SET_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": SignedSetBody.model_json_schema()}},
    }
}
_MANIFEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {"type": "string"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/ConceptEdit"}},
        },
    }
}
_ROLLBACK_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": RollbackBody.model_json_schema()}},
    }
}
_LATE = {
    "model": EditAnswer,
    "description": "Published; on trial, or an older one still runs",
}
_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": EditAnswer}, 202: _LATE}
_NEW_ANSWERS: dict[int | str, dict[str, Any]] = {201: {"model": EditAnswer}, 202: _LATE}


async def _raw_body(request: Request) -> bytes:
    return await request.body()


async def _rollback_body(request: Request) -> RollbackBody:
    return await json_body(request, RollbackBody, shape="{'to': N}")


async def _signed_set_body(request: Request) -> SignedSetBody:
    return await json_body(request, SignedSetBody, shape="{'revision': ..., 'envelope': ...}")


@router.post(
    "/edits",
    status_code=201,
    openapi_extra=_MANIFEST_BODY,
    responses={**_NEW_ANSWERS, 200: {"model": DryRunAnswer, "description": "Of a dry run"}},
)
def publish_edit(
    *,
    caller: Operator,
    body: Annotated[bytes, Depends(_raw_body)],
    request: Request,
    runtime: Running,
    dry_run: bool = False,
    delivery: HowDelivered,
    expected_head: ExpectedHead = None,
) -> Response:
    """Compute a manifest's edit; unless it is a dry run, publish and activate it."""
    edit = parse_manifest(body)
    note(request, target=f"{edit.name}@{edit.version}", reason=edit.metadata.reason)
    if dry_run:
        built, gate = runtime.publisher.preview(edit)
        report = edit_report(edit.name, built, gate)
        answer = DryRunAnswer(name=edit.name, digest=built.digest, report=report)
        return JSONResponse(answer.model_dump())
    published = runtime.publisher.add(
        edit, author=caller.name, expected_head=expected_head, delivery=delivery
    )
    return _answer(request, published, 201, name=edit.name)


@router.get("/edits")
def list_edits(_caller: Viewer, runtime: Running) -> dict[str, Any]:
    """The edits that this replica runs, what was chosen for them, and its policies."""
    active = runtime.activator.active
    if active is None:
        raise NotReady("no revision is active on this replica")
    content = active.built.content
    return {
        "revision": active.revision,
        "digest": active.digest,
        "edits": [edit.model_dump(mode="json", by_alias=True) for edit in content.edits],
        "choices": {
            name: choice.model_dump(mode="json") for name, choice in content.choices.items()
        },
        "policies": {name: list(edits) for name, edits in content.policies.items()},
    }


@router.delete("/edits", responses=_ANSWERS)
def remove_edit(
    *,
    caller: Operator,
    request: Request,
    runtime: Running,
    name: Annotated[str, Query(min_length=1, max_length=63)],
    delivery: HowDelivered,
    expected_head: ExpectedHead = None,
) -> Response:
    """Publish and activate a revision without that edit."""
    note(request, target=name)
    published = runtime.publisher.remove(
        name, author=caller.name, expected_head=expected_head, delivery=delivery
    )
    return _answer(request, published, 200, name=name)


@router.get("/revisions")
def list_revisions(
    *,
    _caller: Viewer,
    runtime: Running,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before: Before = None,
) -> dict[str, Any]:
    """The log, newest first."""
    revisions = runtime.store.revisions(limit=limit, before=before)
    return {"revisions": [_revision(revision) for revision in revisions]}


@router.post("/revisions", status_code=201, openapi_extra=_SET_BODY, responses=_NEW_ANSWERS)
def publish_signed_set(
    *,
    caller: Operator,
    body: Annotated[SignedSetBody, Depends(_signed_set_body)],
    request: Request,
    runtime: Running,
    delivery: HowDelivered,
    expected_head: ExpectedHead = None,
) -> Response:
    """Publish and activate a whole signed set."""
    note(request, target="signed set", reason=body.reason)
    try:
        revision, envelope = canonical_json(body.revision), canonical_json(body.envelope)
    except UnicodeEncodeError:
        raise RequestInvalid("the body is refused: half a character stands in a text") from None
    published = runtime.publisher.publish_signed(
        RevisionContent.from_bytes(revision),
        envelope,
        author=caller.name,
        reason=body.reason,
        expected_head=expected_head,
        delivery=delivery,
    )
    return _answer(request, published, 201)


@router.post("/rollback", openapi_extra=_ROLLBACK_BODY, responses=_ANSWERS)
def roll_back(
    *,
    caller: Operator,
    body: Annotated[RollbackBody, Depends(_rollback_body)],
    request: Request,
    runtime: Running,
    delivery: HowDelivered,
    expected_head: ExpectedHead = None,
) -> Response:
    """Publish and activate a new revision with the content of an old one."""
    note(request, target=f"revision {body.to}", reason=body.reason)
    published = runtime.publisher.roll_back(
        body.to,
        author=caller.name,
        reason=body.reason,
        expected_head=expected_head,
        delivery=delivery,
    )
    return _answer(request, published, 200)


@router.get("/status")
def read_status(_caller: Viewer, runtime: Running) -> dict[str, Any]:
    """Head, this replica, every replica."""
    return status_document(runtime)


@router.get("/audit")
def read_audit(
    *,
    _caller: Viewer,
    runtime: Running,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Before = None,
) -> dict[str, Any]:
    """Who did what, when, with what result; newest first."""
    return {"events": [entry.document() for entry in runtime.store.audit(limit, before)]}


@router.get("/audit/verify")
def verify_audit(
    *,
    _caller: Viewer,
    runtime: Running,
    expect: Annotated[list[str] | None, Query(max_length=100)] = None,
) -> dict[str, Any]:
    """Whether the audit log is as it was recorded, or else its first broken entry."""
    try:
        anchors = [Anchor.parse(text) for text in expect or ()]
    except ValueError as error:
        raise RequestInvalid(str(error), param="expect") from None
    return runtime.store.verify_audit(anchors).document()


def _answer(
    request: Request, published: Published, status: int, *, name: str | None = None
) -> Response:
    revision, built = published.revision, published.built
    note(request, revision=revision.number)
    report = None
    if name is not None and any(edit.name == name for edit in built.content.edits):
        report = edit_report(name, built, published.gate)
    answer = EditAnswer(
        revision=revision.number,
        digest=revision.digest,
        name=name,
        report=report,
        activation_ms=round(published.activation_seconds * 1000, 3),
        fence=published.fence_document,
        rollout=published.rollout_document,
    )
    return JSONResponse(answer.model_dump(exclude_none=True), 202 if published.late else status)


def _revision(revision: RevisionRecord) -> dict[str, Any]:
    return {
        "number": revision.number,
        "digest": revision.digest,
        "parent": revision.parent,
        "author": revision.author,
        "reason": revision.reason,
        "created_at": revision.created_at.isoformat(),
        "expires_at": None if revision.expires_at is None else revision.expires_at.isoformat(),
    }
