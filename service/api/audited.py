"""Every admin call that finds a place, a refused one too, ends in the store's audit log."""

import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from edits.errors import QuickFixError
from edits.store import AuditEvent
from service import metrics
from service.api.context import request_id_of, runtime_of
from service.api.places import admin_place
from service.errors import describe

__all__ = ["AuditedRoute", "note"]

_log = logging.getLogger("quickfix.audit")


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

        async def placed(request: Request) -> Response:
            async with admin_place():
                return await audited(request)

        return placed


def note(request: Request, **facts: object) -> None:
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
