"""One field of every kind is changed in every overlay, and the check says which and where."""

from dataclasses import dataclass
from typing import Any

import pytest

from tools.k8s.__main__ import findings
from tools.k8s.contract import contract
from tools.k8s.overlay import Manifest, Overlay
from tools.k8s.rendering import OVERLAYS

GONE = object()
POD = "spec.template.spec"
SERVER = f"{POD}.containers.0"
POLICY = "spec.ingress.0.from"
FLEET = ("gpu", "gitops")


@dataclass(frozen=True)
class Mutation:
    """A change of one field of an object, and what the check must name."""

    kind: str
    field: str
    value: Any
    names: str
    object: str = "quickfix"
    overlays: tuple[str, ...] = OVERLAYS

    def __str__(self) -> str:
        return f"{self.kind}-{self.object}-{self.field}"


MUTATIONS = [
    Mutation("Namespace", "metadata.labels.pod-security\\.kubernetes\\.io/enforce", "baseline",
             "metadata.labels[pod-security.kubernetes.io/enforce]"),
    Mutation("Namespace", "metadata.name", "other", "metadata.namespace"),
    Mutation("ServiceAccount", "automountServiceAccountToken", True,
             "automountServiceAccountToken"),
    Mutation("ServiceAccount", "metadata.name", "other", f"{POD}.serviceAccountName"),
    # Deployment: environment
    Mutation("Deployment", f"{SERVER}.env.0.name", "QUICKFIX_REPLICAA", "env[QUICKFIX_REPLICAA]"),
    Mutation("Deployment", f"{SERVER}.env.1.valueFrom.resourceFieldRef.resource",
             "requests.memory", "env[QUICKFIX_THREADS]"),
    Mutation("Deployment", f"{SERVER}.env.2.name", "BENTOML_HOEM", "env[BENTOML_HOEM]"),
    Mutation("Deployment", f"{SERVER}.env.6.valueFrom.secretKeyRef.key", "uri",
             "env[QUICKFIX_STORE].valueFrom.secretKeyRef", overlays=FLEET),
    Mutation("Deployment", f"{SERVER}.env.6", GONE, "spec.replicas", overlays=FLEET),
    Mutation("Deployment", f"{SERVER}.envFrom.0.configMapRef.name", "settings",
             "envFrom[0].configMapRef.name"),
    # Deployment: command line, probes and ports
    Mutation("Deployment", f"{SERVER}.args.2", "5", "containers[0].args"),
    Mutation("Deployment", f"{SERVER}.args.4", GONE, "containers[0].args"),
    Mutation("Deployment", f"{SERVER}.readinessProbe.httpGet.path", "/ready",
             "readinessProbe.httpGet.path"),
    Mutation("Deployment", f"{SERVER}.startupProbe.httpGet.path", "/readyz",
             "startupProbe.httpGet.path"),
    Mutation("Deployment", f"{SERVER}.livenessProbe.httpGet.port", "https",
             "livenessProbe.httpGet.port"),
    Mutation("Deployment", f"{SERVER}.startupProbe.failureThreshold", 3,
             "startupProbe.failureThreshold"),
    Mutation("Deployment", f"{SERVER}.startupProbe.failureThreshold", 400,
             "spec.progressDeadlineSeconds"),
    Mutation("Deployment", f"{SERVER}.ports.0.containerPort", 8080, "containers[0].ports"),
    Mutation("Deployment", f"{SERVER}.ports.0.name", "web", "httpGet.port"),
    # Deployment: security, resources, ending
    Mutation("Deployment", f"{POD}.securityContext.runAsUser", 0, "securityContext.runAsUser"),
    Mutation("Deployment", f"{POD}.securityContext.seccompProfile.type", "Unconfined",
             "securityContext.seccompProfile"),
    Mutation("Deployment", f"{SERVER}.securityContext.readOnlyRootFilesystem", False,
             "securityContext.readOnlyRootFilesystem"),
    Mutation("Deployment", f"{SERVER}.securityContext.capabilities.drop", ["NET_RAW"],
             "securityContext.capabilities"),
    Mutation("Deployment", f"{SERVER}.securityContext.privileged", True,
             "securityContext.privileged"),
    Mutation("Deployment", f"{POD}.hostNetwork", True, "hostNetwork"),
    Mutation("Deployment", f"{POD}.enableServiceLinks", True, "enableServiceLinks"),
    Mutation("Deployment", f"{SERVER}.resources.limits.memory", GONE, "resources.limits.memory"),
    Mutation("Deployment", f"{SERVER}.resources.limits.nvidia\\.com/gpu", GONE,
             "resources.limits[nvidia.com/gpu]", overlays=("gpu",)),
    Mutation("Deployment", f"{SERVER}.resources.limits.nvidia\\.com/gpu", "1",
             "resources.limits[nvidia.com/gpu]", overlays=("cpu", "gitops")),
    Mutation("Deployment", f"{SERVER}.lifecycle.preStop.sleep.seconds", 1,
             "lifecycle.preStop.sleep.seconds"),
    Mutation("Deployment", f"{POD}.terminationGracePeriodSeconds", 90,
             "terminationGracePeriodSeconds"),
    Mutation("Deployment", "spec.strategy.rollingUpdate.maxUnavailable", 1,
             "spec.strategy.rollingUpdate.maxUnavailable", overlays=FLEET),
    Mutation("Deployment", "spec.strategy.type", "RollingUpdate", "spec.strategy.type",
             overlays=("cpu",)),
    Mutation("Deployment", "spec.replicas", 2, "spec.replicas"),
    Mutation("Deployment", "spec.template.metadata.annotations.prometheus\\.io/port", "9090",
             "annotations[prometheus.io/port]", overlays=("cpu",)),
    # Deployment: volumes, selectors
    Mutation("Deployment", f"{SERVER}.volumeMounts.0.subPath", "tokens.yaml", "subPath"),
    Mutation("Deployment", f"{SERVER}.volumeMounts.0.name", "other", "volumeMounts["),
    Mutation("Deployment", f"{SERVER}.volumeMounts.0.mountPath", "/etc/elsewhere",
             "lies on no mount"),
    Mutation("Deployment", f"{POD}.volumes.0", GONE, "there is no volume"),
    Mutation("Deployment", f"{POD}.volumes.-1.emptyDir", {}, "emptyDir.sizeLimit"),
    Mutation("Deployment", f"{POD}.volumes.-1", {"name": "tmp", "hostPath": {"path": "/tmp"}},
             "not allowed under restricted"),
    Mutation("Deployment", "spec.selector.matchLabels.app\\.kubernetes\\.io/component", "web",
             "spec.selector.matchLabels"),
    Mutation("Deployment", f"{POD}.topologySpreadConstraints.0.labelSelector.matchLabels",
             {"app": "quickfix"}, "topologySpreadConstraints[0].labelSelector"),
    # The other kinds that every overlay has
    Mutation("ConfigMap", "data.QUICKFIX_MAX_QUEUES", "3", "data.QUICKFIX_MAX_QUEUES",
             object="quickfix-settings"),
    Mutation("ConfigMap", "data.QUICKFIX_REQUEST_TIMEOUT_SECONDS", "601",
             "data.QUICKFIX_REQUEST_TIMEOUT_SECONDS", object="quickfix-settings"),
    Mutation("ConfigMap", "data.QUICKFIX_DRAIN_SECONDS", "300", "terminationGracePeriodSeconds",
             object="quickfix-settings"),
    Mutation("ConfigMap", "data.QUICKFIX_DRAIN_SECONDS", "59", "env[QUICKFIX_DRAIN_SECONDS]",
             object="quickfix-settings"),
    Mutation("ConfigMap", "data.QUICKFIX_TOKENS_FILE", "/etc/quickfix/tokens/token.yaml",
             "data.QUICKFIX_TOKENS_FILE", object="quickfix-settings"),
    Mutation("ConfigMap", "data.QUICKFIX_STATE_DIR", "/state", "/state must be on a writable",
             object="quickfix-settings"),
    Mutation("ConfigMap", "data.remove-pistol\\.yaml", "kind: ConceptEdit",
             "data[remove-pistol.yaml]",
             object="quickfix-edits", overlays=("gitops",)),
    Mutation("Service", "spec.ports.0.targetPort", "https", "spec.ports[0].targetPort"),
    Mutation("Service", "spec.selector.app\\.kubernetes\\.io/component", "web", "spec.selector"),
    Mutation("Service", "spec.ports.0.targetport", "http", "spec.ports[0]"),
    Mutation("PodDisruptionBudget", "spec.maxUnavailable", 0, "spec.maxUnavailable"),
    Mutation("PodDisruptionBudget", "spec.selector.matchLabels.app\\.kubernetes\\.io/component",
             "web", "spec.selector.matchLabels"),
    Mutation("PodDisruptionBudget", "spec.unhealthyPodEvictionPolicy", "IfHealthyBudget",
             "spec.unhealthyPodEvictionPolicy"),
    Mutation("NetworkPolicy", "spec.policyTypes", ["Ingress"], "no NetworkPolicy limits Egress",
             overlays=("cpu",)),
    Mutation("NetworkPolicy", "spec.ingress.0.ports.0.port", "metrics", "spec.ingress[0].ports"),
    Mutation("NetworkPolicy", f"{POLICY}.0", {}, "spec.ingress[0].from"),
    Mutation("NetworkPolicy", f"{POLICY}.2.podSelector", GONE, "spec.ingress[0].from"),
    Mutation("NetworkPolicy", f"{POLICY}.1", GONE, "spec.ingress"),
    Mutation("NetworkPolicy", "spec.podSelector.matchLabels.app\\.kubernetes\\.io/component",
             "web", "spec.podSelector.matchLabels"),
    Mutation("NetworkPolicy", "spec.egress", [{}], "spec.egress[0]"),
    Mutation("PersistentVolumeClaim", "metadata.name", "state",
             "volumes[state].persistentVolumeClaim.claimName", object="quickfix-state",
             overlays=("cpu",)),
    Mutation("PersistentVolumeClaim", "spec.accessModes", "ReadWriteOnce", "spec.accessModes",
             object="quickfix-state", overlays=("cpu",)),
    # What a fleet has
    Mutation("NetworkPolicy", "spec.egress.1.ports.0.port", 5433, "spec.egress[1].ports",
             object="quickfix-store", overlays=FLEET),
    Mutation("NetworkPolicy", "spec.egress.0.to", GONE, "spec.egress[0].to",
             object="quickfix-store", overlays=FLEET),
    Mutation("NetworkPolicy", "spec.podSelector", {}, "spec.podSelector.matchLabels",
             object="quickfix-store", overlays=FLEET),
    Mutation("Job", f"{SERVER}.args.0", "migrat", "containers[0].args",
             object="quickfix-migration", overlays=FLEET),
    Mutation("Job", f"{SERVER}.args.1", "--store-fil", "containers[0].args",
             object="quickfix-migration", overlays=FLEET),
    Mutation("Job", f"{SERVER}.args.2", "/etc/url", "containers[0].args",
             object="quickfix-migration", overlays=FLEET),
    Mutation("Job", f"{SERVER}.image", "quickfix:0.0.9", "containers[0].image",
             object="quickfix-migration", overlays=FLEET),
    Mutation("Job", f"{POD}.volumes.0.secret.secretName", "owner", "volumes[store].secret",
             object="quickfix-migration", overlays=FLEET),
    Mutation("Job", f"{POD}.restartPolicy", GONE, "restartPolicy", object="quickfix-migration",
             overlays=FLEET),
    Mutation("Ingress", "spec.rules.0.http.paths.0.path", "/admin/edits",
             "spec.rules.http.paths[/admin/edits].path", overlays=FLEET),
    Mutation("Ingress", "spec.rules.0.http.paths.1.path", "/v1/model",
             "spec.rules.http.paths[/v1/model].path", overlays=FLEET),
    Mutation("Ingress", "spec.rules.0.http.paths.2.pathType", "Prefix",
             "spec.rules.http.paths[/generate].pathType", overlays=FLEET),
    Mutation("Ingress", "spec.rules.0.http.paths.0.backend.service.port.name", "web",
             "spec.rules.http.paths[/v1/images/generations].backend", overlays=FLEET),
    Mutation("Ingress", "spec.rules.0.host", "example.org", "spec.tls", overlays=FLEET),
    Mutation("Ingress", "spec.tls.0.secretName", "tls", "spec.tls[0].secretName", overlays=FLEET),
    Mutation("ServiceMonitor", "spec.endpoints.0.port", "metrics", "spec.endpoints[0].port",
             overlays=FLEET),
    Mutation("ServiceMonitor", "spec.endpoints.0.path", "/metric", "spec.endpoints[0].path",
             overlays=FLEET),
    Mutation("ServiceMonitor", "spec.endpoints.0.interval", "15", "spec.endpoints[0].interval",
             overlays=FLEET),
    Mutation("ServiceMonitor", "spec.selector.matchLabels.app\\.kubernetes\\.io/name", "other",
             "spec.selector.matchLabels", overlays=FLEET),
    Mutation("ScaledObject", "spec.scaleTargetRef.name", "other", "spec.scaleTargetRef",
             overlays=("gpu",)),
    Mutation("ScaledObject", "spec.minReplicaCount", 1, "spec.minReplicaCount",
             overlays=("gpu",)),
    Mutation("ScaledObject", "spec.fallback", GONE, "spec.fallback.replicas", overlays=("gpu",)),
    Mutation("ScaledObject", "spec.fallback.replicas", 20, "spec.fallback.replicas",
             overlays=("gpu",)),
    Mutation("ScaledObject", "spec.triggers.0.metadata.ignoreNullValues", "true",
             "spec.triggers[0].metadata.ignoreNullValues", overlays=("gpu",)),
    Mutation("ScaledObject", "spec.triggers.0.metadata.query",
             'sum(quickfix_queue{namespace="quickfix"})', "spec.triggers[0].metadata.query",
             overlays=("gpu",)),
    Mutation("ScaledObject", "spec.triggers.0.metadata.query", "sum(quickfix_queue_depth)",
             "spec.triggers[0].metadata.query", overlays=("gpu",)),
    Mutation("ScaledObject", "spec.triggers.0.metadata.threshold", 4,
             "spec.triggers[0].metadata.threshold", overlays=("gpu",)),
    Mutation("HorizontalPodAutoscaler", "spec.scaleTargetRef.name", "other",
             "spec.scaleTargetRef", overlays=("gitops",)),
    Mutation("HorizontalPodAutoscaler", "spec.minReplicas", 1, "spec.minReplicas",
             overlays=("gitops",)),
    Mutation("HorizontalPodAutoscaler", "spec.maxReplicas", 2, "spec.maxReplicas",
             overlays=("gitops",)),
    # Of kinds whose content is another room's: any change of their schema
    Mutation("PrometheusRule", "spec.groups.0.rules.0.expr", "quickfix_nothing > 0",
             "spec.groups[0].rules[0].expr", overlays=FLEET),
    Mutation("PrometheusRule", "spec.groups.0.rules.0.fore", "5m", "spec.groups[0].rules[0]",
             overlays=FLEET),
]  # fmt: skip


def parts(field: str) -> list[str]:
    return [part.replace("\0", ".") for part in field.replace("\\.", "\0").split(".")]


def change(body: Any, field: str, value: Any) -> None:
    *way, last = parts(field)
    for part in way:
        body = body[int(part)] if isinstance(body, list) else body.setdefault(part, {})
    key: Any = int(last) if isinstance(body, list) else last
    if value is GONE:
        del body[key]
    else:
        body[key] = value


def mutated(overlay: Overlay, mutation: Mutation) -> Manifest | None:
    """The manifest that was changed; generated names end in a hash."""
    found = [
        manifest
        for manifest in overlay.of(mutation.kind)
        if mutation.kind == "PrometheusRule"
        or manifest.name == mutation.object
        or manifest.name.startswith(f"{mutation.object}-")
    ]
    if not found:
        return None
    change(found[0].body, mutation.field, mutation.value)
    return found[0]


CASES = [(name, mutation) for mutation in MUTATIONS for name in mutation.overlays]


@pytest.mark.parametrize(
    ("name", "mutation"), CASES, ids=[f"{name}-{mutation}" for name, mutation in CASES]
)
def test_a_changed_field_is_found_and_named(
    name: str, mutation: Mutation, overlays: dict[str, Overlay]
) -> None:
    manifest = mutated(overlays[name], mutation)
    if manifest is None and mutation.kind == "PrometheusRule":
        pytest.skip("the overlay has no rules")
    assert manifest is not None
    said = [str(finding) for finding in findings(overlays[name], contract())]
    about = [line for line in said if mutation.names in line]
    assert about, said
    assert all(line.startswith("k8s/") and ".yaml: " in line for line in said)


def test_every_kind_of_every_overlay_is_mutated(rendered: dict[str, Overlay]) -> None:
    for name, overlay in rendered.items():
        kinds = {manifest.kind for manifest in overlay.manifests}
        assert kinds <= {mutation.kind for mutation in MUTATIONS if name in mutation.overlays}
