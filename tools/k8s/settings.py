"""The environment says only what the service understands, and names files that are there."""

from collections.abc import Iterator

from edits.errors import QuickFixError
from edits.manifests import parse_manifest
from service.errors import SettingsInvalid
from tools.k8s.contract import Contract
from tools.k8s.overlay import Finding, Overlay, Pod

__all__ = ["check_settings"]

# Variables that others than the service read.
FOREIGN = {"BENTOML_DO_NOT_TRACK", "BENTOML_HOME", "HF_HUB_OFFLINE", "HOME"}
DIRECTORY_OR_FILE = (
    "QUICKFIX_EDITS_DIR",
    "QUICKFIX_TOKENS_FILE",
    "QUICKFIX_API_KEYS_FILE",
    "QUICKFIX_TRUSTED_KEYS",
)


def check_settings(overlay: Overlay, contract: Contract) -> Iterator[Finding]:
    """Every variable is known, every value accepted, every file mounted, every edit valid."""
    for pod in overlay.pods:
        environment = overlay.environment(pod)
        for name in environment:
            if name not in contract.variables | FOREIGN:
                yield _of(overlay, pod, name, "nothing reads this variable")
        own = {n: text for n, text in environment.items() if n in contract.variables}
        try:
            contract.settings(own)
        except SettingsInvalid as error:
            yield _of(overlay, pod, str(error.param), error.message)
        if pod.serves:
            yield from _files(overlay, pod, own)
            yield from _device(pod, own, overlay)
            yield from _store(overlay, pod, own)
            yield from _edits(overlay, pod, own)


def _of(overlay: Overlay, pod: Pod, name: str, message: str) -> Finding:
    """A finding on a variable, in the ConfigMap where it stands, else in the container."""
    for source in pod.container.get("envFrom") or []:
        found = overlay.find("ConfigMap", (source.get("configMapRef") or {}).get("name", ""))
        if found is not None and name in found.data:
            return Finding(found, f"data.{name}", message)
    return pod.in_container(f"env[{name}]", message)


def _files(overlay: Overlay, pod: Pod, own: dict[str, str]) -> Iterator[Finding]:
    for name in DIRECTORY_OR_FILE:
        path = own.get(name)
        if path is None:
            continue
        volume = pod.volume_of(path)
        if volume is None:
            yield _of(overlay, pod, name, f"{path} lies on no mount")
            continue
        mount = next(place for place in pod.mounts if path.startswith(place))
        secret = overlay.find("Secret", (volume.get("secret") or {}).get("secretName", ""))
        file = path.removeprefix(mount).lstrip("/")
        if secret is not None and file not in secret.data:
            message = f"Secret {secret.name} has no key {file}"
            yield _of(overlay, pod, name, message)
    model = own.get("QUICKFIX_MODEL", "")
    if model.startswith("/") and pod.volume_of(model) is None:
        yield _of(overlay, pod, "QUICKFIX_MODEL", f"{model} lies on no mount")


def _device(pod: Pod, own: dict[str, str], overlay: Overlay) -> Iterator[Finding]:
    limits = (pod.container.get("resources") or {}).get("limits") or {}
    gpus, cuda = int(limits.get("nvidia.com/gpu", 0)), own.get("QUICKFIX_DEVICE") == "cuda"
    if gpus != int(cuda):
        message = f"{gpus} GPUs, and QUICKFIX_DEVICE is {own.get('QUICKFIX_DEVICE')}; one a pod"
        yield pod.in_container("resources.limits[nvidia.com/gpu]", message)
    if "QUICKFIX_DEVICE" not in own:
        yield _of(overlay, pod, "QUICKFIX_DEVICE", "say it: auto hides a GPU that is missing")
    threads = own.get("QUICKFIX_THREADS")
    if threads != str(limits.get("cpu")):
        message = f"{threads} threads on {limits.get('cpu')} cores: a quota is not seen inside"
        yield pod.in_container("env[QUICKFIX_THREADS]", message)


def _store(overlay: Overlay, pod: Pod, own: dict[str, str]) -> Iterator[Finding]:
    """Several replicas share a database; one without has its store on a volume that stays."""
    if own.get("QUICKFIX_STORE"):
        return
    state = pod.volume_of(own.get("QUICKFIX_STATE_DIR", "")) or {}
    if "persistentVolumeClaim" not in state:
        message = "the store would end with the pod, and removed concepts come back: use a claim"
        yield pod.finding(f"volumes[{state.get('name')}]", message)
    replicas = pod.manifest.spec.get("replicas", 1)
    if overlay.autoscaled or replicas != 1:
        message = f"{replicas} replicas without QUICKFIX_STORE would each have their own edits"
        yield Finding(pod.manifest, "spec.replicas", message)
    if (pod.manifest.spec.get("strategy") or {}).get("type") != "Recreate":
        message = "two pods would write one SQLite store during an update: Recreate"
        yield Finding(pod.manifest, "spec.strategy.type", message)


def _edits(overlay: Overlay, pod: Pod, own: dict[str, str]) -> Iterator[Finding]:
    volume = pod.volume_of(own.get("QUICKFIX_EDITS_DIR", "")) or {}
    source = overlay.find("ConfigMap", (volume.get("configMap") or {}).get("name", ""))
    for name, text in (source.data if source else {}).items():
        assert source is not None  # noqa: S101 - it has entries
        try:
            parse_manifest(text)
        except QuickFixError as error:
            where = f"data[{name}]" + (f".{error.param}" if error.param else "")
            yield Finding(source, where, error.message)
