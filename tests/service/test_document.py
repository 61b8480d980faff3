"""The OpenAPI document says what is answered; test_api_fuzz.py sends what it says."""

from typing import Any

import pytest

from service.api.app import create_api
from service.errors import HTTP_ERRORS, HTTP_TYPES

OPERATIONS = [
    (method, path, operation)
    for path, item in create_api()[0].openapi()["paths"].items()
    for method, operation in item.items()
]
IDS = [f"{method} {path}" for method, path, _operation in OPERATIONS]


def document() -> dict[str, Any]:
    return create_api()[0].openapi()


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=IDS)
def test_every_error_has_the_one_shape_and_every_answer_its_id(
    method: str, path: str, operation: dict[str, Any]
) -> None:
    for status, answer in operation["responses"].items():
        assert "X-Request-Id" in answer["headers"]
        if int(status) >= 400:
            assert answer["content"] == {
                "application/json": {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}
            }
    assert {"401", "414", "415", "431", "500", "503"} <= set(operation["responses"])


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=IDS)
def test_a_route_that_takes_a_body_or_a_token_says_so(
    method: str, path: str, operation: dict[str, Any]
) -> None:
    needs_token = operation["security"] == [{"admin token": []}]
    assert needs_token == path.startswith("/admin/")
    assert ("requestBody" in operation) == (method in ("post", "put"))
    assert ("413" in operation["responses"]) == ("requestBody" in operation)


def test_the_types_of_errors_are_those_that_are_answered() -> None:
    error = document()["components"]["schemas"]["ErrorAnswer"]["properties"]["error"]
    answered = {kind for _status, kind in HTTP_ERRORS.values()} | set(HTTP_TYPES.values())
    assert set(error["properties"]["type"]["enum"]) == answered | {"internal_error"}


def test_no_reference_dangles_and_no_foreign_shape_is_left() -> None:
    known = set(document()["components"]["schemas"])
    assert "HTTPValidationError" not in known

    def references(value: object) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [found for part in value.values() for found in references(part)]
        if isinstance(value, list):
            return [found for part in value for found in references(part)]
        return []

    found = references(document())
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in known, reference
