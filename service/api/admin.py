"""Routes with a token: edits, revisions, roll back, status and audit.

Every route is a plain function, so that it runs off the event loop; every call, a refused one
too, ends in the store's audit log.
"""

import json
import logging
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from edits.errors import QuickFixError
from edits.manifests import parse_manifest
from edits.store import AuditEntry, AuditEvent, RevisionRecord
from service import metrics
from service.api.context import Operator, Running, Viewer, request_id_of, runtime_of
from service.api.schemas import EditAnswer, RollbackBody, edit_report
from service.api.status import status_document
from service.errors import NotReady, RequestInvalid, describe
from service.publishing import Published

__all__ = ["router"]

_log = logging.getLogger("quickfix.admin")
_DEFAULT_WAIT = 10.0  # seconds for this replica to run what was published


class AuditedRoute(APIRoute):
    """Writes who called what with which result, whatever the result is."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's handler inside the record."""
        handler = super().get_route_handler()

        async def audited(request: Request) -> Response:
            outcome = "failed"
            try:
                response = await handler(request)
                outcome = "ok"
                return response
            except Exception as error:
                outcome = _outcome(error)
                raise
            finally:
                await run_in_threadpool(_record, request, self.name, outcome)

        return audited


router = APIRouter(prefix="/admin", tags=["admin"], route_class=AuditedRoute)

Wait = Annotated[float, Query(ge=0, le=300, allow_inf_nan=False)]
ExpectedHead = Annotated[int | None, Query(ge=0)]
_MANIFEST_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {"schema": {"type": "string"}},
            "application/json": {"schema": {"type": "object"}},
        },
    }
}


async def _raw_body(request: Request) -> bytes:
    return await request.body()


async def _rollback_body(request: Request) -> RollbackBody:
    # Parsed here, not by FastAPI, which would look at the body before the token.
    try:
        return RollbackBody.model_validate_json(await request.body())
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        raise RequestInvalid(f"the body is not {{'to': N}}: {first['msg']}", param=param) from None


@router.post("/edits", status_code=201, openapi_extra=_MANIFEST_BODY)
def publish_edit(
    *,
    caller: Operator,
    body: Annotated[bytes, Depends(_raw_body)],
    request: Request,
    runtime: Running,
    dry_run: bool = False,
    wait: Wait = _DEFAULT_WAIT,
    expected_head: ExpectedHead = None,
) -> Response:
    """Compute a manifest's edit; unless it is a dry run, publish and activate it."""
    edit = parse_manifest(body)
    _note(request, target=f"{edit.name}@{edit.version}", reason=edit.metadata.reason)
    if dry_run:
        built = runtime.publisher.preview(edit)
        report = edit_report(edit.name, built.reports, built.seconds)
        return JSONResponse(
            {"dry_run": True, "name": edit.name, "digest": built.digest, "report": report}
        )
    published = runtime.publisher.add(
        edit, author=caller.name, expected_head=expected_head, wait=wait
    )
    return _answer(request, published, 201, name=edit.name)


@router.get("/edits")
def list_edits(_caller: Viewer, runtime: Running) -> dict[str, Any]:
    """The edits that this replica runs, and its policies."""
    active = runtime.activator.active
    if active is None:
        raise NotReady("no revision is active on this replica")
    content = active.built.content
    return {
        "revision": active.revision,
        "digest": active.digest,
        "edits": [edit.model_dump(mode="json", by_alias=True) for edit in content.edits],
        "policies": {name: list(edits) for name, edits in content.policies.items()},
    }


@router.delete("/edits")
def remove_edit(
    *,
    caller: Operator,
    request: Request,
    runtime: Running,
    name: Annotated[str, Query(min_length=1, max_length=63)],
    wait: Wait = _DEFAULT_WAIT,
    expected_head: ExpectedHead = None,
) -> Response:
    """Publish and activate a revision without that edit."""
    _note(request, target=name)
    published = runtime.publisher.remove(
        name, author=caller.name, expected_head=expected_head, wait=wait
    )
    return _answer(request, published, 200, name=name)


@router.get("/revisions")
def list_revisions(
    *,
    _caller: Viewer,
    runtime: Running,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    before: Annotated[int | None, Query(ge=1)] = None,
) -> dict[str, Any]:
    """The log, newest first."""
    revisions = runtime.store.revisions(limit=limit, before=before)
    return {"revisions": [_revision(revision) for revision in revisions]}


@router.post("/rollback")
def roll_back(
    *,
    caller: Operator,
    body: Annotated[RollbackBody, Depends(_rollback_body)],
    request: Request,
    runtime: Running,
    wait: Wait = _DEFAULT_WAIT,
) -> Response:
    """Publish and activate a new revision with the content of an old one."""
    _note(request, target=f"revision {body.to}", reason=body.reason)
    published = runtime.publisher.roll_back(
        body.to, author=caller.name, reason=body.reason, wait=wait
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
    before: Annotated[int | None, Query(ge=1)] = None,
) -> dict[str, Any]:
    """Who did what, when, with what result; newest first."""
    return {"events": [_event(entry) for entry in runtime.store.audit(limit, before)]}


def _answer(
    request: Request, published: Published, status: int, *, name: str | None = None
) -> Response:
    revision, built = published.revision, published.built
    _note(request, revision=revision.number)
    report = None
    if name is not None and any(edit.name == name for edit in built.content.edits):
        report = edit_report(name, built.reports, built.seconds)
    answer = EditAnswer(
        revision=revision.number,
        digest=revision.digest,
        name=name,
        report=report,
        activation_ms=round(published.activation_seconds * 1000, 3),
    )
    return JSONResponse(answer.model_dump(exclude_none=True), status)


def _note(request: Request, **facts: object) -> None:
    """Keep what the audit record should say beside the route's name."""
    noted: dict[str, object] = getattr(request.state, "noted", {})
    request.state.noted = {**noted, **facts}


def _record(request: Request, action: str, outcome: str) -> None:
    principal = getattr(request.state, "principal", None)
    noted: dict[str, object] = getattr(request.state, "noted", {})
    details = {"request_id": request_id_of(request), **noted}
    target = str(details.pop("target", ""))
    event = AuditEvent(
        actor=principal.name if principal else "",
        role=principal.role if principal else "",
        action=action,
        target=target,
        outcome=outcome,
        detail=json.dumps({key: value for key, value in details.items() if value != ""}),
    )
    try:
        runtime_of(request).store.record(event)
    except QuickFixError as error:
        # The call itself has succeeded or failed already; its answer must not change.
        metrics.AUDIT_FAILURES.inc()
        _log.error("not recorded action=%s error=%s", action, type(error).__name__)


def _outcome(error: Exception) -> str:
    if isinstance(error, RequestValidationError | HTTPException):
        return "invalid_request"
    return describe(error).type


def _revision(revision: RevisionRecord) -> dict[str, Any]:
    return {
        "number": revision.number,
        "digest": revision.digest,
        "parent": revision.parent,
        "author": revision.author,
        "reason": revision.reason,
        "created_at": revision.created_at.isoformat(),
    }


def _event(entry: AuditEntry) -> dict[str, Any]:
    event = entry.event
    return {
        "id": entry.id,
        "at": entry.at.isoformat(),
        "actor": event.actor,
        "role": event.role,
        "action": event.action,
        "target": event.target,
        "outcome": event.outcome,
        "detail": event.detail,
        "hash": entry.hash,
    }
