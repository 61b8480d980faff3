"""What an overlay renders to: manifests that know their file, and the findings of a check."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Finding", "Manifest", "Overlay", "Pod"]

Body = dict[str, Any]


@dataclass(frozen=True)
class Manifest:
    """One object, and the file that it comes from."""

    file: str
    body: Body

    @property
    def kind(self) -> str:
        """What it is."""
        return str(self.body.get("kind"))

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.metadata.get("name"))

    @property
    def metadata(self) -> Body:
        """Its metadata; empty when there is none."""
        return self.body.get("metadata") or {}

    @property
    def labels(self) -> dict[str, str]:
        """Its own labels, not those of its pods."""
        return self.metadata.get("labels") or {}

    @property
    def spec(self) -> Body:
        """What is wanted of it."""
        return self.body.get("spec") or {}

    @property
    def data(self) -> dict[str, str]:
        """The entries of a ConfigMap or a Secret."""
        return {**(self.body.get("data") or {}), **(self.body.get("stringData") or {})}

    def __str__(self) -> str:
        return f"{self.file}: {self.kind}/{self.name}"


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: where it stands, in which field, and what to do about it."""

    manifest: Manifest
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.manifest}: {self.field}: {self.message}"


@dataclass(frozen=True)
class Pod:
    """The pod template of a workload, with the place of its fields in the manifest."""

    manifest: Manifest

    @property
    def serves(self) -> bool:
        """Whether it is the service, not a Job."""
        return self.manifest.kind == "Deployment"

    @property
    def template(self) -> Body:
        """The template; empty when there is none."""
        return self.manifest.spec.get("template") or {}

    @property
    def labels(self) -> dict[str, str]:
        """What selectors find the pods by."""
        return (self.template.get("metadata") or {}).get("labels") or {}

    @property
    def spec(self) -> Body:
        """The pods' specification."""
        return self.template.get("spec") or {}

    @property
    def container(self) -> Body:
        """The one container; `check_pods` says so when there is not exactly one."""
        containers = self.spec.get("containers") or [{}]
        return containers[0] or {}

    @property
    def volumes(self) -> dict[str, Body]:
        """Name -> volume."""
        return {volume.get("name"): volume for volume in self.spec.get("volumes") or []}

    @property
    def mounts(self) -> dict[str, Body]:
        """Mount path -> mount."""
        return {m.get("mountPath"): m for m in self.container.get("volumeMounts") or []}

    @property
    def ports(self) -> dict[str, int]:
        """Name -> number of the container's ports."""
        return {p.get("name"): p.get("containerPort") for p in self.container.get("ports") or []}

    def volume_of(self, path: str) -> Body | None:
        """The volume that the file or folder lies on; None: the image's own file system."""
        folders = [str(folder) for folder in (Path(path), *Path(path).parents)]
        mount = next((self.mounts[folder] for folder in folders if folder in self.mounts), None)
        return None if mount is None else self.volumes.get(mount.get("name", ""))

    def finding(self, field: str, message: str) -> Finding:
        """A finding on a field of the pod's specification."""
        return Finding(self.manifest, f"spec.template.spec.{field}", message)

    def in_container(self, field: str, message: str) -> Finding:
        """A finding on a field of the container."""
        return self.finding(f"containers[0].{field}", message)


@dataclass(frozen=True)
class Overlay:
    """A rendered overlay, and the objects that an operator is told to make by hand."""

    name: str
    manifests: tuple[Manifest, ...]
    examples: tuple[Manifest, ...]

    def of(self, *kinds: str) -> Iterator[Manifest]:
        """The manifests of these kinds."""
        return (manifest for manifest in self.manifests if manifest.kind in kinds)

    def find(self, kind: str, name: str) -> Manifest | None:
        """An object that will be there: rendered, or made after an example."""
        known = (*self.manifests, *self.examples)
        return next((m for m in known if (m.kind, m.name) == (kind, name)), None)

    @property
    def pods(self) -> list[Pod]:
        """The pods of every workload."""
        return [Pod(manifest) for manifest in self.of("Deployment", "Job")]

    @property
    def autoscaled(self) -> bool:
        """Whether an autoscaler decides the number of replicas."""
        return any(self.of("HorizontalPodAutoscaler", "ScaledObject"))

    def environment(self, pod: Pod) -> dict[str, str]:
        """The container's variables; one that only the cluster knows has a value of its kind."""
        values: dict[str, str] = {}
        for source in pod.container.get("envFrom") or []:
            for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                found = self.find(kind, (source.get(key) or {}).get("name", ""))
                values |= found.data if found else {}
        for entry in pod.container.get("env") or []:
            values[str(entry.get("name"))] = str(entry.get("value", self._reference(pod, entry)))
        return values

    def _reference(self, pod: Pod, entry: Body) -> str:
        source = entry.get("valueFrom") or {}
        for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
            if reference := source.get(key):
                found = self.find(kind, reference.get("name", ""))
                return (found.data if found else {}).get(reference.get("key", ""), "")
        resource = str((source.get("resourceFieldRef") or {}).get("resource", ""))
        which, _, name = resource.partition(".")
        limits = (pod.container.get("resources") or {}).get(which) or {}
        return str(limits.get(name, "pod-1"))


def manifests_of(path: Path, file: str) -> list[Manifest]:
    """The manifests in a file of YAML."""
    text = path.read_text(encoding="utf-8")
    return [Manifest(file, body) for body in yaml.safe_load_all(text) if body]
