"""What a manifest names is there: objects, keys, volumes, ports, pods."""

from collections.abc import Iterator, Mapping
from typing import Any

from tools.k8s.contract import Contract
from tools.k8s.overlay import Finding, Manifest, Overlay, Pod

__all__ = ["check_references"]


def check_references(overlay: Overlay, _contract: Contract) -> Iterator[Finding]:
    """Selectors select, ports exist, and every object that is named is rendered or documented."""
    for pod in overlay.pods:
        yield from _sources(overlay, pod)
        yield from _volumes(overlay, pod)
        account = pod.spec.get("serviceAccountName", "default")
        if overlay.find("ServiceAccount", account) is None:
            yield pod.finding("serviceAccountName", f"there is no ServiceAccount {account}")
    yield from _selectors(overlay)
    yield from _container_ports(overlay)
    yield from _service_ports(overlay)
    yield from _targets(overlay)


def _sources(overlay: Overlay, pod: Pod) -> Iterator[Finding]:
    """ConfigMaps and Secrets that the environment is read from."""
    kinds = {"configMap": "ConfigMap", "secret": "Secret"}
    for index, source in enumerate(pod.container.get("envFrom") or []):
        for key, kind in kinds.items():
            if reference := source.get(f"{key}Ref"):
                field = f"envFrom[{index}].{key}Ref.name"
                for message in _missing(overlay, kind, reference):
                    yield pod.in_container(field, message)
    for entry in pod.container.get("env") or []:
        for key, kind in kinds.items():
            if reference := (entry.get("valueFrom") or {}).get(f"{key}KeyRef"):
                field = f"env[{entry.get('name')}].valueFrom.{key}KeyRef"
                for message in _missing(overlay, kind, reference):
                    yield pod.in_container(field, message)


def _missing(overlay: Overlay, kind: str, reference: Mapping[str, Any]) -> Iterator[str]:
    name, key = reference.get("name") or reference.get("secretName"), reference.get("key")
    found = overlay.find(kind, str(name))
    if found is None:
        yield f"there is no {kind} {name}, nor an example of one"
    elif key is not None and key not in found.data:
        yield f"{kind} {name} has no key {key}; it has: {', '.join(sorted(found.data))}"


def _volumes(overlay: Overlay, pod: Pod) -> Iterator[Finding]:
    """Mounts have their volume, volumes their source, and nothing is left over."""
    mounted = {mount.get("name") for mount in pod.mounts.values()}
    for path, mount in pod.mounts.items():
        if mount.get("name") not in pod.volumes:
            yield pod.in_container(f"volumeMounts[{path}]", f"there is no volume {mount['name']}")
        if "subPath" in mount:
            message = "a file mounted by subPath never changes; mount the directory"
            yield pod.in_container(f"volumeMounts[{path}].subPath", message)
    for name, volume in pod.volumes.items():
        if name not in mounted:
            yield pod.finding(f"volumes[{name}]", "no container mounts it")
        for key, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
            if key in volume:
                for message in _missing(overlay, kind, volume[key]):
                    yield pod.finding(f"volumes[{name}].{key}", message)
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
        if claim and overlay.find("PersistentVolumeClaim", claim) is None:
            message = f"there is no PersistentVolumeClaim {claim}, nor an example of one"
            yield pod.finding(f"volumes[{name}].persistentVolumeClaim.claimName", message)


def _selectors(overlay: Overlay) -> Iterator[Finding]:
    """Selectors of pods find pods, those of one Deployment its own, those of services services."""
    pods = [pod.labels for pod in overlay.pods]
    servers = [pod.labels for pod in overlay.pods if pod.serves]
    services = [service.labels for service in overlay.of("Service")]
    places = {
        "Service": ("spec.selector", servers),
        "PodDisruptionBudget": ("spec.selector.matchLabels", servers),
        "NetworkPolicy": ("spec.podSelector.matchLabels", pods),
        "ServiceMonitor": ("spec.selector.matchLabels", services),
    }
    for manifest in overlay.of(*places):
        field, labelled = places[manifest.kind]
        yield from _selects(manifest, field, _at(manifest.body, field), labelled)
    for pod in overlay.pods:
        if pod.serves:
            field = "spec.selector.matchLabels"
            selector = _at(pod.manifest.body, field)
            yield from _selects(pod.manifest, field, selector, [pod.labels])
        for index, spread in enumerate(pod.spec.get("topologySpreadConstraints") or []):
            field = f"spec.template.spec.topologySpreadConstraints[{index}].labelSelector"
            selector = (spread.get("labelSelector") or {}).get("matchLabels")
            yield from _selects(pod.manifest, field, selector, [pod.labels])


def _selects(
    manifest: Manifest, field: str, selector: Any, labelled: list[dict[str, str]]
) -> Iterator[Finding]:
    if not selector:
        yield Finding(manifest, field, "selects everything; name the labels")
    elif not any(selector.items() <= labels.items() for labels in labelled):
        yield Finding(manifest, field, f"selects nothing: no object has the labels {selector}")


def _at(body: Any, field: str) -> Any:
    for part in field.split("."):
        body = (body or {}).get(part)
    return body


def _container_ports(overlay: Overlay) -> Iterator[Finding]:
    """Names of ports that Services and policies give, and the container has."""
    container = {name for pod in overlay.pods for name in pod.ports}
    for service in overlay.of("Service"):
        for index, port in enumerate(service.spec.get("ports") or []):
            if port.get("targetPort") not in container:
                message = f"no container has a port {port.get('targetPort')}"
                yield Finding(service, f"spec.ports[{index}].targetPort", message)
    for policy in overlay.of("NetworkPolicy"):
        for index, rule in enumerate(policy.spec.get("ingress") or []):
            for port in rule.get("ports") or [{}]:
                if port.get("port") not in container:
                    message = f"no container has a port {port.get('port')}"
                    yield Finding(policy, f"spec.ingress[{index}].ports", message)


def _service_ports(overlay: Overlay) -> Iterator[Finding]:
    """Names of ports that monitors and the Ingress give, and the Service has."""
    services = {
        service.name: {port.get("name") for port in service.spec.get("ports") or []}
        for service in overlay.of("Service")
    }
    known = set().union(*services.values())
    for monitor in overlay.of("ServiceMonitor"):
        for index, endpoint in enumerate(monitor.spec.get("endpoints") or []):
            if endpoint.get("port") not in known:
                message = f"no Service has a port {endpoint.get('port')}"
                yield Finding(monitor, f"spec.endpoints[{index}].port", message)
    for ingress in overlay.of("Ingress"):
        for path in _paths(ingress):
            service = path["backend"]["service"]
            if service["port"].get("name") not in services.get(service["name"], set()):
                message = f"no Service {service['name']} has a port {service['port']}"
                yield Finding(ingress, f"spec.rules.http.paths[{path['path']}].backend", message)


def _paths(ingress: Manifest) -> Iterator[dict[str, Any]]:
    for rule in ingress.spec.get("rules") or []:
        yield from (rule.get("http") or {}).get("paths") or []


def _targets(overlay: Overlay) -> Iterator[Finding]:
    """What an autoscaler scales, and the Secret of an Ingress."""
    for scaler in overlay.of("HorizontalPodAutoscaler", "ScaledObject"):
        target = scaler.spec.get("scaleTargetRef") or {}
        kind, name = target.get("kind", "Deployment"), target.get("name")
        found = overlay.find(kind, str(name))
        if found is None or target.get("apiVersion", "apps/v1") != found.body["apiVersion"]:
            message = f"there is no {kind} {name} of {target.get('apiVersion')}"
            yield Finding(scaler, "spec.scaleTargetRef", message)
    for ingress in overlay.of("Ingress"):
        for index, tls in enumerate(ingress.spec.get("tls") or []):
            for message in _missing(overlay, "Secret", tls):
                yield Finding(ingress, f"spec.tls[{index}].secretName", message)
