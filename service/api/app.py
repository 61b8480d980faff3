"""The FastAPI app: routers, and one error shape for everything that can go wrong."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from edits.errors import QuickFixError
from service.api import admin, policies, public, rollouts, traces
from service.api.answers import http_problem, problem_answer
from service.api.document import Api
from service.api.edge import Edge
from service.errors import Problem, describe

__all__ = ["create_api"]


def create_api() -> tuple[FastAPI, ASGIApp]:
    """The app, whose `state.runtime` the service sets before the first request, and its edge."""
    api = Api(
        title="QuickFix",
        description="Image generation whose concepts can be taken out while it serves.",
        docs_url="/docs",
        redoc_url=None,
        # A redirect would send a token to whatever host the request named.
        redirect_slashes=False,
    )
    api.include_router(public.router)
    api.include_router(admin.router)
    api.include_router(policies.router)
    api.include_router(rollouts.router)
    api.include_router(traces.router)
    api.add_api_route("/", _to_docs, include_in_schema=False)
    api.add_exception_handler(RequestValidationError, _invalid_body)
    api.add_exception_handler(HTTPException, _http_error)
    api.add_exception_handler(QuickFixError, _known_error)
    api.add_exception_handler(Exception, _known_error)
    return api, Edge(api)


def _to_docs() -> RedirectResponse:
    return RedirectResponse("/docs")


def _known_error(_request: Request, error: Exception) -> JSONResponse:
    return problem_answer(describe(error))


def _http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    return http_problem(error)


def _invalid_body(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
    return problem_answer(validation_problem(error))


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
