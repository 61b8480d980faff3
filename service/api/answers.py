"""Errors as answers: one shape, and the headers that belong to a status."""

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from service.errors import HTTP_TYPES, Problem, wire_body

__all__ = ["http_problem", "problem_answer"]


def problem_answer(problem: Problem, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer of a problem."""
    all_headers = dict(headers or {})
    if problem.retry_after is not None:
        all_headers["Retry-After"] = str(problem.retry_after)
    if problem.type == "not_ready":  # on another connection another replica may be found
        all_headers["Connection"] = "close"
    if problem.status == 401:
        all_headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(wire_body(problem), problem.status, headers=all_headers)


def http_problem(error: HTTPException) -> JSONResponse:
    """The answer of what HTTP itself refuses."""
    kind = HTTP_TYPES.get(error.status_code, "http_error")
    problem = Problem(error.status_code, kind, str(error.detail))
    return problem_answer(problem, dict(error.headers or {}))
