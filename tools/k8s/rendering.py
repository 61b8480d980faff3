"""Renders overlays with the real kubectl, which comes as a wheel: no root, no cluster."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tools.k8s.overlay import Manifest, Overlay, manifests_of

__all__ = ["FOLDER", "OVERLAYS", "RenderingFailed", "kustomize", "render"]

FOLDER = Path(__file__).resolve().parents[2] / "k8s"
OVERLAYS = ("cpu", "gpu", "gitops")
KUBECTL = Path(sys.executable).parent / "kubectl"  # beside python, whatever PATH says
ORIGIN = "config.kubernetes.io/origin"


class RenderingFailed(RuntimeError):
    """kubectl refuses the kustomization; the message is its own."""


def kustomize(folder: Path) -> str:
    """What `kubectl kustomize` prints. Raises RenderingFailed."""
    run = subprocess.run(  # noqa: S603 - our own command
        [str(KUBECTL), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise RenderingFailed(f"{folder.name}: {run.stderr.strip()}")
    return run.stdout


def render(name: str, folder: Path = FOLDER) -> Overlay:
    """The overlay `name` of `folder`, every manifest with its file. Raises RenderingFailed."""
    with tempfile.TemporaryDirectory() as scratch:
        # Around the overlay, or the cluster would get the annotations, too.
        around = Path(scratch).resolve()
        overlay = os.path.relpath((folder / "overlays" / name).resolve(), around)
        kustomization = {"resources": [overlay], "buildMetadata": ["originAnnotations"]}
        (around / "kustomization.yaml").write_text(yaml.safe_dump(kustomization), encoding="utf-8")
        text = kustomize(around)
        manifests = [
            _with_origin(body, around, folder.parent) for body in yaml.safe_load_all(text) if body
        ]
    examples = [
        manifest
        for path in sorted(folder.rglob("*.example.yaml"))
        for manifest in manifests_of(path, str(path.relative_to(folder.parent)))
    ]
    return Overlay(name, tuple(manifests), tuple(examples))


def _with_origin(body: dict[str, object], around: Path, root: Path) -> Manifest:
    """The manifest without kustomize's note of its file, and that file."""
    metadata = body["metadata"]
    assert isinstance(metadata, dict)  # noqa: S101 - kustomize made it
    annotations = metadata["annotations"]
    origin = yaml.safe_load(annotations.pop(ORIGIN))
    if not annotations:
        del metadata["annotations"]
    file = (around / (origin.get("path") or origin["configuredIn"])).resolve()
    return Manifest(str(file.relative_to(root.resolve())), body)
