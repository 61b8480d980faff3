"""Pods that a restricted namespace takes, that are probed rightly, and end without a loss."""

from collections.abc import Iterator
from itertools import pairwise

from typer.testing import CliRunner

from edits.cli import app
from edits.serving import LEAVE_SECONDS, SERVE_OPTIONS
from service.errors import SettingsInvalid
from tools.k8s.contract import IMAGE_USER, Contract
from tools.k8s.overlay import Finding, Overlay, Pod

__all__ = ["check_pods"]

# A replica that is not ready must stay up and say why, so only readiness asks /readyz.
PROBES = {"startupProbe": "/livez", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
PRE_STOP_SECONDS = 5  # endpoints are removed while the pod ends
EXIT_SECONDS = 5
START_SECONDS = 300
RESTRICTED = {"enforce": "restricted"}


def check_pods(overlay: Overlay, contract: Contract) -> Iterator[Finding]:
    """Security, resources, probes, ports, and the arithmetic of the grace period."""
    for namespace in overlay.of("Namespace"):
        for mode, level in RESTRICTED.items():
            label = f"pod-security.kubernetes.io/{mode}"
            if namespace.labels.get(label) != level:
                yield Finding(namespace, f"metadata.labels[{label}]", f"must be {level}")
    for account in overlay.of("ServiceAccount"):
        if account.body.get("automountServiceAccountToken") is not False:
            message = "the service never calls the cluster's API: false"
            yield Finding(account, "automountServiceAccountToken", message)
    images = {pod.container.get("image") for pod in overlay.pods}
    for pod in overlay.pods:
        if len(pod.spec.get("containers") or []) != 1:
            yield pod.finding("containers", "one container is checked here, no more and no less")
        yield from _security(pod)
        yield from _resources(pod)
        yield from _writable(overlay, pod)
        if len(images) != 1 and not pod.serves:
            message = "not the image of the servers; code and schema belong together"
            yield pod.in_container("image", message)
        if pod.serves:
            yield from _probes(pod, contract)
            yield from _ending(overlay, pod, contract)
            yield from _annotations(pod, contract)
            if pod.container.get("args") != ["serve", *SERVE_OPTIONS]:
                message = f"must be serve {' '.join(SERVE_OPTIONS)}, as quickfix serve has it"
                yield pod.in_container("args", message)
        else:
            yield from _job(pod)


def _security(pod: Pod) -> Iterator[Finding]:
    of_pod, own = pod.spec.get("securityContext") or {}, pod.container.get("securityContext") or {}
    wanted = {
        "runAsNonRoot": True,
        "runAsUser": IMAGE_USER,
        "runAsGroup": IMAGE_USER,
        "fsGroup": IMAGE_USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    for key, value in wanted.items():
        if of_pod.get(key) != value:
            yield pod.finding(f"securityContext.{key}", f"must be {value}")
    wanted = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for key, value in wanted.items():
        if own.get(key) != value:
            yield pod.in_container(f"securityContext.{key}", f"must be {value}")
    for key in ("runAsUser", "runAsNonRoot", "privileged", "seccompProfile"):
        if key in own:
            yield pod.in_container(f"securityContext.{key}", "the pod decides this")
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(key):
            yield pod.finding(key, "pods share nothing with their node")
    for name, volume in pod.volumes.items():
        kinds = set(volume) - {"name"}
        if not kinds <= {"configMap", "secret", "emptyDir", "persistentVolumeClaim", "projected"}:
            yield pod.finding(f"volumes[{name}]", f"not allowed under restricted: {kinds}")
    for key in ("automountServiceAccountToken", "enableServiceLinks"):
        if pod.spec.get(key) is not False:
            yield pod.finding(key, "must be false")


def _resources(pod: Pod) -> Iterator[Finding]:
    resources = pod.container.get("resources") or {}
    for name in ("cpu", "memory", "ephemeral-storage"):
        for which in ("requests", "limits"):
            if name not in (resources.get(which) or {}):
                yield pod.in_container(f"resources.{which}.{name}", "is missing")


def _writable(overlay: Overlay, pod: Pod) -> Iterator[Finding]:
    """What is written lies on a volume, and an emptyDir has an end."""
    environment = overlay.environment(pod)
    folders = {"/tmp"}  # noqa: S108 - of the container
    if pod.serves:
        names = ("BENTOML_HOME", "HOME", "QUICKFIX_STATE_DIR")
        folders |= {environment.get(name, f"${name}") for name in names}
    for folder in sorted(folders):
        volume = pod.volume_of(folder) or {}
        if not {"emptyDir", "persistentVolumeClaim"} & set(volume):
            yield pod.in_container("volumeMounts", f"{folder} must be on a writable volume")
    for name, volume in pod.volumes.items():
        if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
            yield pod.finding(f"volumes[{name}].emptyDir.sizeLimit", "is missing")


def _probes(pod: Pod, contract: Contract) -> Iterator[Finding]:
    if contract.port not in pod.ports.values():
        yield pod.in_container("ports", f"the service listens on {contract.port}")
    for probe, path in PROBES.items():
        get = (pod.container.get(probe) or {}).get("httpGet") or {}
        if get.get("path") != path or path not in contract.probe_paths:
            yield pod.in_container(f"{probe}.httpGet.path", f"must be {path}")
        if pod.ports.get(str(get.get("port"))) != contract.port:
            yield pod.in_container(
                f"{probe}.httpGet.port", "is no port that the service listens on"
            )
    startup = pod.container.get("startupProbe") or {}
    seconds = startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3)
    if seconds < START_SECONDS:
        message = f"{seconds} s to load a model; give it {START_SECONDS}"
        yield pod.in_container("startupProbe.failureThreshold", message)
    deadline = pod.manifest.spec.get("progressDeadlineSeconds", 600)
    if deadline <= seconds:
        message = f"an update is given up after {deadline} s, and a start may take {seconds}"
        yield Finding(pod.manifest, "spec.progressDeadlineSeconds", message)


def _ending(overlay: Overlay, pod: Pod, contract: Contract) -> Iterator[Finding]:
    lifecycle = pod.container.get("lifecycle") or {}
    sleep = ((lifecycle.get("preStop") or {}).get("sleep") or {}).get("seconds", 0)
    if sleep < PRE_STOP_SECONDS:
        message = f"serve on for at least {PRE_STOP_SECONDS} s, until nobody sends any more"
        yield pod.in_container("lifecycle.preStop.sleep.seconds", message)
    environment = overlay.environment(pod)
    own = {n: text for n, text in environment.items() if n in contract.variables}
    try:
        settings = contract.settings(own)
    except SettingsInvalid:
        return  # the settings' own check says so
    if settings.drain_seconds < settings.request_timeout_seconds:
        message = f"gives up what may run for {settings.request_timeout_seconds:g} s"
        yield pod.in_container("env[QUICKFIX_DRAIN_SECONDS]", message)
    needed = sleep + settings.drain_seconds + LEAVE_SECONDS + EXIT_SECONDS
    grace = pod.spec.get("terminationGracePeriodSeconds", 30)
    if grace < needed:
        message = f"{grace} s for preStop, the drain, slow readers and the exit: {needed:g}"
        yield pod.finding("terminationGracePeriodSeconds", message)
    strategy = pod.manifest.spec.get("strategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    if strategy.get("type") == "RollingUpdate" and rolling.get("maxUnavailable") != 0:
        field = "spec.strategy.rollingUpdate.maxUnavailable"
        yield Finding(pod.manifest, field, "an update must not take capacity away: 0")


def _annotations(pod: Pod, contract: Contract) -> Iterator[Finding]:
    annotations = (pod.template.get("metadata") or {}).get("annotations") or {}
    scrape = {"prometheus.io/path": "/metrics", "prometheus.io/port": str(contract.port)}
    for name, value in scrape.items():
        if name in annotations and annotations[name] != value:
            place = f"spec.template.metadata.annotations[{name}]"
            yield Finding(pod.manifest, place, f"must be {value}")


def _job(pod: Pod) -> Iterator[Finding]:
    """The command line of a Job is one that the program has."""
    command, arguments = pod.container.get("command"), list(pod.container.get("args") or [])
    if command != ["python", "-m", "edits.cli"]:
        yield pod.in_container("command", "must be python -m edits.cli: the image has no quickfix")
    if pod.spec.get("restartPolicy") not in ("OnFailure", "Never"):
        yield pod.finding("restartPolicy", "a Job's pods end: OnFailure or Never")
    parsed = CliRunner().invoke(app, [*arguments, "--help"])  # parses, and does nothing
    if parsed.exit_code:
        yield pod.in_container("args", " ".join(parsed.output.split()))
    file = dict(pairwise(arguments)).get("--store-file", "")
    if "secret" not in (pod.volume_of(file) or {}):
        yield pod.in_container("args", f"--store-file {file} lies on no mounted Secret")
