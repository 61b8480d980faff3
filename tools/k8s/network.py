"""Who may call whom: every pod is fenced both ways, and the outside sees the image routes only."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import make_url

from tools.k8s.contract import Contract
from tools.k8s.overlay import Finding, Manifest, Overlay, Pod

__all__ = ["check_network"]

DNS = {(53, "TCP"), (53, "UDP")}
CALLERS = {"gateway", "monitoring", "operators"}
ACCESS = "quickfix/access"


def check_network(overlay: Overlay, contract: Contract) -> Iterator[Finding]:
    """Default deny, no peer without a name, egress to DNS and the store, a narrow Ingress."""
    policies = list(overlay.of("NetworkPolicy"))
    for pod in overlay.pods:
        yield from _fenced(pod, policies)
    store = _store_ports(overlay)
    for policy in policies:
        yield from _peers(policy)
        for index, rule in enumerate(policy.spec.get("egress") or []):
            ports = {(p.get("port"), p.get("protocol", "TCP")) for p in rule.get("ports") or []}
            if ports not in (DNS, store):
                message = f"out go names and the store only, at {sorted(store)}; not {ports}"
                yield Finding(policy, f"spec.egress[{index}].ports", message)
    for ingress in overlay.of("Ingress"):
        yield from _outside(ingress, contract)


def _fenced(pod: Pod, policies: list[Manifest]) -> Iterator[Finding]:
    """Some policy of each direction selects the pod: without one everything may pass."""
    kinds: set[str] = set()
    callers: set[str] = set()
    for policy in policies:
        selector = (policy.spec.get("podSelector") or {}).get("matchLabels") or {}
        if selector.items() <= pod.labels.items():
            kinds |= set(policy.spec.get("policyTypes") or [])
            for rule in policy.spec.get("ingress") or []:
                callers |= {_access(peer) for peer in rule.get("from") or []}
    for kind in {"Ingress", "Egress"} - kinds:
        message = f"no NetworkPolicy limits {kind} of these pods"
        yield Finding(pod.manifest, "spec.template.metadata.labels", message)
    wanted = CALLERS if pod.serves else set()
    if callers != wanted:
        message = f"let in are {sorted(callers)}; it should be {sorted(wanted)}"
        for policy in policies:
            yield Finding(policy, "spec.ingress", message)


def _access(peer: dict[str, Any]) -> str:
    labels = (peer.get("namespaceSelector") or {}).get("matchLabels") or {}
    return str(labels.get(ACCESS))


def _peers(policy: Manifest) -> Iterator[Finding]:
    for direction, key in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(policy.spec.get(direction) or []):
            field = f"spec.{direction}[{index}].{key}"
            peers = rule.get(key) or []
            named = [
                (peer.get("ipBlock") or {}).get("cidr")
                or (peer.get("namespaceSelector") or {}).get("matchLabels")
                for peer in peers
            ]
            if not peers or not all(named):
                yield Finding(policy, field, "an empty peer is everybody; name the namespace")
            for peer, name in zip(peers, named, strict=True):
                if name == {ACCESS: "monitoring"} and not peer.get("podSelector"):
                    message = "of the monitoring namespace only Prometheus reads figures"
                    yield Finding(policy, field, message)


def _store_ports(overlay: Overlay) -> set[tuple[int, str]]:
    """The port of the store's URL, as its example has it."""
    urls = (overlay.environment(pod).get("QUICKFIX_STORE") for pod in overlay.pods)
    return {(make_url(url).port or 5432, "TCP") for url in urls if url}


def _outside(ingress: Manifest, contract: Contract) -> Iterator[Finding]:
    for rule in ingress.spec.get("rules") or []:
        for path in (rule.get("http") or {}).get("paths") or []:
            field = f"spec.rules.http.paths[{path.get('path')}]"
            if path.get("pathType") != "Exact":
                yield Finding(ingress, f"{field}.pathType", "a prefix opens what is below: Exact")
            if path.get("path") not in contract.public_paths:
                served = ", ".join(sorted(contract.public_paths))
                yield Finding(ingress, f"{field}.path", f"not a public route; those are {served}")
        hosts = {host for tls in ingress.spec.get("tls") or [] for host in tls.get("hosts") or []}
        if rule.get("host") not in hosts:
            yield Finding(ingress, "spec.tls", f"{rule.get('host')} would be served without TLS")
