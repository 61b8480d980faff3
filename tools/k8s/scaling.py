"""Replicas: who decides how many, by figures that exist, and how many may be away."""

import json
import re
from collections.abc import Iterator

from tools.k8s.contract import Contract
from tools.k8s.overlay import Finding, Manifest, Overlay

__all__ = ["check_scaling"]

FEWEST = 2


def check_scaling(overlay: Overlay, contract: Contract) -> Iterator[Finding]:
    """Autoscalers, budgets, and every metric that any manifest names."""
    scalers = list(overlay.of("HorizontalPodAutoscaler", "ScaledObject"))
    for surplus in scalers[1:]:
        message = f"{scalers[0].kind} scales these pods already; two would fight"
        yield Finding(surplus, "spec.scaleTargetRef", message)
    for deployment in overlay.of("Deployment"):
        if overlay.autoscaled == ("replicas" in deployment.spec):
            message = "the autoscaler's, or say how many; never both, never neither"
            yield Finding(deployment, "spec.replicas", message)
    for hpa in overlay.of("HorizontalPodAutoscaler"):
        yield from _bounds(hpa, "minReplicas", "maxReplicas")
    for scaled in overlay.of("ScaledObject"):
        yield from _bounds(scaled, "minReplicaCount", "maxReplicaCount")
        yield from _triggers(scaled)
    for budget in overlay.of("PodDisruptionBudget"):
        if budget.spec.get("maxUnavailable") != 1 or "minAvailable" in budget.spec:
            message = "must be 1: nodes can be drained, one replica after the other"
            yield Finding(budget, "spec.maxUnavailable", message)
        if budget.spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            message = "a replica that is not ready must not block a drain: AlwaysAllow"
            yield Finding(budget, "spec.unhealthyPodEvictionPolicy", message)
    for monitor in overlay.of("ServiceMonitor"):
        for index, endpoint in enumerate(monitor.spec.get("endpoints") or []):
            if endpoint.get("path", "/metrics") not in contract.probe_paths:
                field = f"spec.endpoints[{index}].path"
                yield Finding(monitor, field, f"{endpoint['path']} is not served")
    for manifest in overlay.of("ScaledObject", "PrometheusRule", "ConfigMap"):
        yield from _metrics(manifest, contract)


def _bounds(scaler: Manifest, fewest: str, most: str) -> Iterator[Finding]:
    low, high = scaler.spec.get(fewest, 0), scaler.spec.get(most, 0)
    if low < FEWEST:
        yield Finding(scaler, f"spec.{fewest}", f"{low}: one of {FEWEST} may be lost at any time")
    if high <= low:
        yield Finding(scaler, f"spec.{most}", f"{high} leaves no room above {low}")


def _triggers(scaled: Manifest) -> Iterator[Finding]:
    fallback = scaled.spec.get("fallback") or {}
    low, high = scaled.spec.get("minReplicaCount", 0), scaled.spec.get("maxReplicaCount", 0)
    if not low <= fallback.get("replicas", 0) <= high:
        message = f"without figures there must be {low} to {high} replicas"
        yield Finding(scaled, "spec.fallback.replicas", message)
    for index, trigger in enumerate(scaled.spec.get("triggers") or []):
        field, metadata = f"spec.triggers[{index}]", trigger.get("metadata") or {}
        if trigger.get("metricType", "AverageValue") != "AverageValue":
            yield Finding(
                scaled, f"{field}.metricType", "the threshold is per replica: AverageValue"
            )
        if metadata.get("ignoreNullValues") != "false":
            message = "a lost metric would count as an empty queue, without the fallback: false"
            yield Finding(scaled, f"{field}.metadata.ignoreNullValues", message)
        wanted = f'namespace="{scaled.metadata.get("namespace")}"'
        query = str(metadata.get("query"))
        if query.count(wanted) != query.count("quickfix_"):
            message = f"counts other installations, too; every metric needs {wanted}"
            yield Finding(scaled, f"{field}.metadata.query", message)


def _metrics(manifest: Manifest, contract: Contract) -> Iterator[Finding]:
    """Expressions and dashboards read metrics that the service has."""
    for name in sorted(set(re.findall(r"\bquickfix_\w+", json.dumps(manifest.body)))):
        if name not in contract.metrics:
            yield Finding(manifest, _place(manifest, name), f"the service has no metric {name}")


def _place(manifest: Manifest, text: str) -> str:
    """The field that holds the text."""

    def search(value: object, path: str) -> str:
        pairs = (
            [(f"{path}.{key}", item) for key, item in value.items()]
            if isinstance(value, dict)
            else [(f"{path}[{number}]", item) for number, item in enumerate(value)]
            if isinstance(value, list)
            else []
        )
        for place, item in pairs:
            if text in json.dumps(item):
                return search(item, place)
        return path

    return search(manifest.body, "").removeprefix(".")
