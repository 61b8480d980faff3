"""The OpenAPI document: what FastAPI derives from the routes, and what only the whole app knows.

That is the errors of every operation in their one shape, the headers of every answer, who may call,
and the schema of manifests. Fuzzing (benchmarks/api_fuzz.py) holds the app to all of it.
"""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from edits.manifests import ConceptEdit
from service.errors import HTTP_ERRORS, HTTP_TYPES

__all__ = ["Api"]

_Json = dict[str, Any]

_TEXT: _Json = {"type": "string"}
_REF = "#/components/schemas/{model}"
_ERROR = "ErrorAnswer"
_MANIFEST = "ConceptEdit"
_FASTAPI_OWN = ("HTTPValidationError", "ValidationError")  # shapes that are never answered here

_SECURITY: _Json = {
    "admin token": {"type": "http", "scheme": "bearer", "description": "roles: docs/access.md"},
    "API key": {"type": "http", "scheme": "bearer", "description": "where the service has keys"},
}
_HEADERS: dict[int, tuple[str, _Json]] = {
    401: ("WWW-Authenticate", {"const": "Bearer"}),
    429: ("Retry-After", {"type": "integer", "minimum": 1}),
}
_STAMPS: dict[str, _Json] = {
    "X-QuickFix-Revision": {"type": "integer", "minimum": 1},
    "X-QuickFix-Digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
}


class Api(FastAPI):
    """The app with its whole document."""

    def openapi(self) -> _Json:
        """The document of `/openapi.json`, made once."""
        if self.openapi_schema is None:
            self.openapi_schema = _complete(super().openapi())
        return self.openapi_schema


def _complete(document: _Json) -> _Json:
    components = document["components"]
    components["securitySchemes"] = _SECURITY
    schemas = components["schemas"]
    for name in _FASTAPI_OWN:
        schemas.pop(name, None)
    schemas[_ERROR] = _error_schema()
    manifest = ConceptEdit.model_json_schema(ref_template=_REF)
    schemas |= manifest.pop("$defs", {})
    schemas[_MANIFEST] = manifest
    for path, item in document["paths"].items():
        for method, operation in item.items():
            _complete_operation(path, method, operation)
    return document


def _error_schema() -> _Json:
    types = {kind for _status, kind in HTTP_ERRORS.values()} | set(HTTP_TYPES.values())
    error: _Json = {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": sorted(types | {"internal_error"})},
            "message": {"type": "string", "minLength": 1},
            "param": {"anyOf": [_TEXT, {"type": "null"}], "description": "the field that is wrong"},
        },
        "required": ["type", "message", "param"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"error": error},
        "required": ["error"],
        "additionalProperties": False,
    }


def _complete_operation(path: str, method: str, operation: _Json) -> None:
    is_admin = path.startswith("/admin/")
    operation["security"] = [{"admin token": []}] if is_admin else [{}, {"API key": []}]
    for parameter in operation.get("parameters", ()):
        # A query is text: there is no null in it, only a parameter that is left out.
        kinds = parameter["schema"].pop("anyOf", [])
        for kind in kinds:
            if kind != {"type": "null"}:
                parameter["schema"] |= kind
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own
    if method == "post" and not is_admin:
        for name, schema in _STAMPS.items():
            responses["200"].setdefault("headers", {})[name] = _header(schema)
    for status in sorted(_statuses(path, method, operation)):
        content = {"application/json": {"schema": {"$ref": _REF.format(model=_ERROR)}}}
        answer: _Json = {"description": HTTPStatus(status).phrase, "content": content}
        if status in _HEADERS:
            name, schema = _HEADERS[status]
            answer["headers"] = {name: _header(schema)}
        responses[str(status)] = answer
    for answer in responses.values():
        answer.setdefault("headers", {})["X-Request-Id"] = _header(_TEXT)


def _statuses(path: str, method: str, operation: _Json) -> set[int]:
    """How a call can be refused."""
    found = {401, 414, 415, 431, 500, 503}
    if "parameters" in operation or "requestBody" in operation:
        found.add(400)
    if "requestBody" in operation:
        found |= {408, 413}
    if path.startswith("/admin/"):
        if method != "get":
            found |= {403, 404, 409, 422}
        if path == "/admin/traces":
            found.add(404)
    elif method == "post":
        found |= {403, 429, 504}
    return found


def _header(schema: _Json) -> _Json:
    return {"required": True, "schema": schema}
