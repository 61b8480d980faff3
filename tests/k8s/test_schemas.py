"""No key of any manifest can be misspelt unnoticed, whatever its kind."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import jsonschema
import pytest

from tools.k8s.contract import contract
from tools.k8s.overlay import Manifest, Overlay
from tools.k8s.schemas import CRD_SCHEMAS, check_schemas

# Maps whose keys are the author's own words; what selects by them has checks of its own.
FREE = {"annotations", "data", "labels", "limits", "matchLabels", "requests", "stringData"}
SELECTOR_OF_A_SERVICE = ("spec", "selector")

RULES = {
    "apiVersion": "monitoring.coreos.com/v1",
    "kind": "PrometheusRule",
    "metadata": {"name": "rules", "namespace": "quickfix"},
    "spec": {
        "groups": [
            {
                "name": "quickfix",
                "interval": "30s",
                "rules": [
                    {"record": "quickfix:queue:sum", "expr": "sum(quickfix_queue_depth)"},
                    {
                        "alert": "QueueFull",
                        "expr": "quickfix:queue:sum > 30",
                        "for": "5m",
                        "labels": {"severity": "page"},
                        "annotations": {"summary": "the queue is full"},
                    },
                ],
            }
        ]
    },
}


def valid(body: dict[str, Any]) -> list[str]:
    namespace = Manifest(
        "k8s/base/namespace.yaml",
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "quickfix"}},
    )
    around = () if body["kind"] == "Namespace" else (namespace,)
    overlay = Overlay("one", (*around, Manifest("k8s/one.yaml", body)), ())
    return [str(finding) for finding in check_schemas(overlay, contract())]


def keys(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every key that a schema knows."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            # A Service's selector is a bare map of labels.
            if key not in FREE and ((*path, key) != SELECTOR_OF_A_SERVICE or "matchLabels" in item):
                yield from keys(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from keys(item, (*path, index))


def misspelt(body: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    changed: Any = deepcopy(body)
    place = changed
    for part in path[:-1]:
        place = place[part]
    place[f"{path[-1]}x"] = place.pop(path[-1])
    return changed  # type: ignore[no-any-return]


def test_every_key_that_is_misspelt_is_caught(rendered: dict[str, Overlay]) -> None:
    seen: set[tuple[Any, ...]] = set()
    tried = 0
    for overlay in rendered.values():
        for manifest in overlay.manifests:
            for path in keys(manifest.body):
                shape = (manifest.kind, *(0 if isinstance(p, int) else p for p in path))
                if shape in seen or path in {("kind",), ("apiVersion",)}:
                    continue
                seen.add(shape)
                tried += 1
                changed = misspelt(manifest.body, path)
                assert valid(changed), f"{manifest.kind}: {'.'.join(map(str, path))}"
    assert tried > 200


@pytest.mark.parametrize("path", sorted(CRD_SCHEMAS.glob("*.json")), ids=lambda path: path.stem)
def test_schemas_of_custom_kinds_are_schemas_and_refuse_unknown_fields_everywhere(path) -> None:
    schema = json.loads(path.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)

    def objects(value: Any) -> Iterator[dict[str, Any]]:
        if isinstance(value, dict):
            if "properties" in value and isinstance(value.get("type"), str):
                yield value
            for item in value.values():
                yield from objects(item)
        elif isinstance(value, list):
            for item in value:
                yield from objects(item)

    found = list(objects(schema))
    assert len(found) > 3
    assert all(item["additionalProperties"] is False for item in found)


def test_rules_that_alert_and_record_are_valid() -> None:
    assert valid(RULES) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"for": "5 minutes"}, "spec.groups[0].rules[1].for"),
        ({"record": "quickfix:x"}, "spec.groups[0].rules[1]"),
        ({"expr": ""}, "spec.groups[0].rules[1].expr"),
        ({"labels": {"severity": 1}}, "spec.groups[0].rules[1].labels.severity"),
        ({"severity": "page"}, "spec.groups[0].rules[1]"),
    ],
)
def test_a_rule_that_prometheus_would_refuse_is_refused(change, field) -> None:
    rules: Any = deepcopy(RULES)
    rules["spec"]["groups"][0]["rules"][1] |= change
    (said,) = valid(rules)
    assert said.startswith(f"k8s/one.yaml: PrometheusRule/rules: {field}: ")


def test_a_kind_without_a_schema_is_said_and_not_passed_over() -> None:
    body = {**deepcopy(RULES), "kind": "PrometheusRules"}
    (said,) = valid(body)
    assert "apiVersion: Couldn't find schema for kind PrometheusRules" in said
