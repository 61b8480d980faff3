"""What every route may ask of the app: the running service, and who calls."""

from typing import Annotated

from fastapi import Depends, Request

from service.api.auth import Principal, authenticate
from service.runtime import Runtime

__all__ = ["Operator", "Running", "Viewer", "request_id_of", "runtime_of"]


def runtime_of(request: Request) -> Runtime:
    """The service behind this app."""
    runtime: Runtime = request.app.state.runtime
    return runtime


def request_id_of(request: Request) -> str:
    """The id that the edge gave the request."""
    identity: str = request.state.request_id
    return identity


def _caller(request: Request) -> Principal:
    principal = authenticate(runtime_of(request).tokens, request.headers.get("authorization"))
    request.state.principal = principal  # the audit names the caller, also of a refused call
    return principal


def _viewer(request: Request) -> Principal:
    principal = _caller(request)
    principal.require("viewer")
    return principal


def _operator(request: Request) -> Principal:
    principal = _caller(request)
    principal.require("operator")
    return principal


Running = Annotated[Runtime, Depends(runtime_of)]
Viewer = Annotated[Principal, Depends(_viewer)]
Operator = Annotated[Principal, Depends(_operator)]
