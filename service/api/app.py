"""The FastAPI app: routers, and one error shape for everything that can go wrong."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from edits.errors import QuickFixError
from service.api import admin, policies, public, traces
from service.api.edge import Edge
from service.errors import Problem, describe, wire_body

__all__ = ["create_api"]

_HTTP_TYPES = {
    400: "invalid_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
}


def create_api() -> tuple[FastAPI, ASGIApp]:
    """The app, whose `state.runtime` the service sets before the first request, and its edge."""
    api = FastAPI(
        title="QuickFix",
        description="Image generation whose concepts can be taken out while it serves.",
        docs_url="/docs",
        redoc_url=None,
    )
    api.include_router(public.router)
    api.include_router(admin.router)
    api.include_router(policies.router)
    api.include_router(traces.router)
    api.add_api_route("/", _to_docs, include_in_schema=False)
    api.add_exception_handler(RequestValidationError, _invalid_body)
    api.add_exception_handler(HTTPException, _http_error)
    api.add_exception_handler(QuickFixError, _known_error)
    api.add_exception_handler(Exception, _known_error)
    return api, Edge(api)


def _to_docs() -> RedirectResponse:
    return RedirectResponse("/docs")


def _answer(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    all_headers = dict(headers or {})
    if problem.retry_after is not None:
        all_headers["Retry-After"] = str(problem.retry_after)
    if problem.status == 401:
        all_headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(wire_body(problem), problem.status, headers=all_headers)


def _known_error(_request: Request, error: Exception) -> JSONResponse:
    return _answer(describe(error))


def _http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    kind = _HTTP_TYPES.get(error.status_code, "http_error")
    problem = Problem(error.status_code, kind, str(error.detail))
    return _answer(problem, dict(error.headers or {}))


def _invalid_body(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
    return _answer(validation_problem(error))


def validation_problem(error: RequestValidationError) -> Problem:
    """The first bad field. What was sent is not repeated: it may be a prompt."""
    first = error.errors()[0]
    where, *path = first["loc"]
    kind = first["type"]
    if kind == "json_invalid":
        return Problem(400, "invalid_request", "the body is not JSON")
    if where == "body" and not path:
        return Problem(
            400,
            "invalid_request",
            "the body must be a JSON object sent with `Content-Type: application/json`",
        )
    param = ".".join(str(part) for part in path)
    message = f"{param}: {first['msg'][:1].lower()}{first['msg'][1:]}"
    return Problem(400, "invalid_request", message, param)
