"""What every route may ask of the app: the running service, and who calls."""

from typing import Annotated, Literal, TypeVar

from fastapi import Depends, Query, Request
from pydantic import BaseModel, ValidationError

from edits.store import MAX_SOAK_SECONDS, SOAK_SECONDS, RolloutPlan
from service.api.api_keys import ApiKey
from service.api.auth import Principal, authenticate
from service.api.json_text import read_json
from service.delivery import Delivery
from service.errors import RequestInvalid
from service.runtime import Runtime

__all__ = [
    "Before",
    "ExpectedHead",
    "FenceSeconds",
    "HowDelivered",
    "Key",
    "Operator",
    "Running",
    "Viewer",
    "json_body",
    "request_id_of",
    "runtime_of",
]

MAX_NUMBER = 2**63 - 1  # a larger one is no number of a database

Body = TypeVar("Body", bound=BaseModel)


def runtime_of(request: Request) -> Runtime:
    """The service behind this app."""
    runtime: Runtime = request.app.state.runtime
    return runtime


def request_id_of(request: Request) -> str:
    """The id that the edge gave the request."""
    identity: str = request.state.request_id
    return identity


async def json_body(request: Request, model: type[Body], *, shape: str) -> Body:
    """The body as a value, where FastAPI's own parsing would look at it before the token.

    Raises RequestInvalid.
    """
    try:
        return model.model_validate(read_json(await request.body()))
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        param = ".".join(str(part) for part in first["loc"]) or None
        raise RequestInvalid(f"the body is not {shape}: {first['msg']}", param=param) from None


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


def _api_key(request: Request) -> ApiKey | None:
    key: ApiKey | None = request.state.api_key
    return key


FenceSeconds = Annotated[float | None, Query(ge=0, le=300, allow_inf_nan=False)]


def _delivery(
    wait: FenceSeconds = None,
    urgency: Annotated[Literal["normal", "immediate"], Query()] = "normal",
    canary: Annotated[float | None, Query(gt=0, lt=1, allow_inf_nan=False)] = None,
    soak: Annotated[float | None, Query(ge=0, le=MAX_SOAK_SECONDS, allow_inf_nan=False)] = None,
) -> Delivery:
    urgent = urgency == "immediate"
    if canary is None:
        if soak is not None:
            raise RequestInvalid(
                "soak is how long canaries try a revision, and without canary it would go to all "
                "replicas at once: name their share",
                param="soak",
            )
        return Delivery(fence_seconds=wait, urgent=urgent)
    if urgent or wait is not None:
        raise RequestInvalid(
            "canary tries a revision on some replicas first; urgency=immediate and wait ask for "
            "all of them at once: leave out the one or the other",
            param="canary",
        )
    return Delivery(plan=RolloutPlan(canary, SOAK_SECONDS if soak is None else soak))


Running = Annotated[Runtime, Depends(runtime_of)]
Viewer = Annotated[Principal, Depends(_viewer)]
Operator = Annotated[Principal, Depends(_operator)]
Key = Annotated[ApiKey | None, Depends(_api_key)]  # on routes that ask for one

# How a write reaches the fleet; the head that it is based on.
HowDelivered = Annotated[Delivery, Depends(_delivery)]
ExpectedHead = Annotated[int | None, Query(ge=0, le=MAX_NUMBER)]

# Of a page: only entries with a lower number.
Before = Annotated[int | None, Query(ge=1, le=MAX_NUMBER)]
