"""Every overlay renders with the real kubectl, and nothing is wrong with what it renders."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from edits.manifests import catalog_entry, parse_manifest
from service.api.auth import FileTokens
from tools.k8s.__main__ import findings
from tools.k8s.contract import contract
from tools.k8s.overlay import Overlay, Pod
from tools.k8s.rendering import FOLDER, OVERLAYS, RenderingFailed, kustomize

ROOT = FOLDER.parent
COMMON = {
    "Namespace": 1,
    "ServiceAccount": 1,
    "ConfigMap": 1,
    "Service": 1,
    "Deployment": 1,
    "PodDisruptionBudget": 1,
    "NetworkPolicy": 1,
}
FLEET = {"NetworkPolicy": 2, "Job": 1, "Ingress": 1, "ServiceMonitor": 1}
# What the cluster gets at least; rules and dashboards come on top.
KINDS = {
    "cpu": COMMON | {"PersistentVolumeClaim": 1},
    "gpu": COMMON | FLEET | {"ScaledObject": 1},
    "gitops": COMMON | FLEET | {"HorizontalPodAutoscaler": 1, "ConfigMap": 2},
}


def server(overlay: Overlay) -> Pod:
    (pod,) = (pod for pod in overlay.pods if pod.serves)
    return pod


@pytest.mark.parametrize("name", OVERLAYS)
def test_nothing_is_wrong_with_an_overlay(name: str, rendered: dict[str, Overlay]) -> None:
    assert [str(finding) for finding in findings(rendered[name], contract())] == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_has_all_its_objects(name: str, rendered: dict[str, Overlay]) -> None:
    kinds = Counter(manifest.kind for manifest in rendered[name].manifests)
    assert kinds >= Counter(KINDS[name]), kinds


def test_only_the_cpu_overlay_needs_nothing_but_kubernetes(rendered: dict[str, Overlay]) -> None:
    core = {"v1", "apps/v1", "batch/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1"}
    foreign = {
        name: {m.body["apiVersion"] for m in overlay.manifests} - core
        for name, overlay in rendered.items()
    }
    assert foreign["cpu"] == set()
    assert foreign["gpu"] == {"keda.sh/v1alpha1", "monitoring.coreos.com/v1"}
    assert foreign["gitops"] == {"monitoring.coreos.com/v1"}


def test_every_file_is_part_of_some_overlay_or_an_example() -> None:
    """A manifest that no kustomization lists is applied by nobody."""
    listed: set[Path] = set()
    for path in FOLDER.rglob("kustomization.yaml"):
        kustomization = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = [*kustomization["resources"]] if "resources" in kustomization else []
        names += [patch["path"] for patch in kustomization.get("patches", []) if "path" in patch]
        for generator in kustomization.get("configMapGenerator", []):
            names += [*generator.get("files", []), *generator.get("envs", [])]
        listed |= {path.parent / name.rpartition("=")[2] for name in names}
    files = {path for path in FOLDER.rglob("*") if path.is_file()}
    left_over = {
        str(path.relative_to(ROOT))
        for path in files - listed
        if path.name != "kustomization.yaml"
        and ".example." not in path.name
        and path.parent.name != "schemas"
    }
    assert left_over == set()


def test_findings_name_the_file_that_a_manifest_comes_from(rendered: dict[str, Overlay]) -> None:
    files = {(m.kind, m.name): m.file for m in rendered["gitops"].manifests}
    assert files["Deployment", "quickfix"] == "k8s/base/deployment.yaml"
    assert files["Job", "quickfix-migration"] == "k8s/components/postgresql/migration.yaml"
    assert files["ConfigMap", "quickfix-edits"] == "k8s/overlays/gitops/kustomization.yaml"


def test_what_is_applied_has_no_notes_of_the_check() -> None:
    for name in OVERLAYS:
        assert "config.kubernetes.io" not in kustomize(FOLDER / "overlays" / name)


def test_a_kustomization_that_is_wrong_is_said_in_kubectls_words(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n", encoding="utf-8")
    with pytest.raises(RenderingFailed, match=r"missing\.yaml"):
        kustomize(tmp_path)


def test_changed_settings_roll_the_pods_and_changed_edits_do_not(
    rendered: dict[str, Overlay],
) -> None:
    (source,) = server(rendered["gitops"]).container["envFrom"]
    assert source["configMapRef"]["name"].startswith("quickfix-settings-")
    assert server(rendered["gitops"]).volumes["edits"]["configMap"]["name"] == "quickfix-edits"


def test_edits_of_the_gitops_overlay_are_those_of_the_catalog(rendered: dict[str, Overlay]) -> None:
    edits = rendered["gitops"].find("ConfigMap", "quickfix-edits")
    assert edits is not None and edits.data
    for name, text in edits.data.items():
        edit = parse_manifest(text)
        assert name == f"{edit.name}.yaml"
        assert edit == catalog_entry(edit.name)


def test_a_fleet_has_a_lease_and_one_store(rendered: dict[str, Overlay]) -> None:
    for name in ("gpu", "gitops"):
        environment = rendered[name].environment(server(rendered[name]))
        assert environment["QUICKFIX_MAX_STALENESS_SECONDS"] == "300"
        assert environment["QUICKFIX_STORE"].startswith("postgresql+psycopg://quickfix:")
        owner = rendered[name].find("Secret", "quickfix-store-owner")
        assert owner is not None and owner.data["url"] != environment["QUICKFIX_STORE"]


def test_a_gpu_pod_has_one_gpu_and_half_precision(rendered: dict[str, Overlay]) -> None:
    pod = server(rendered["gpu"])
    assert pod.container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    settings = contract().settings(
        {n: t for n, t in rendered["gpu"].environment(pod).items() if n in contract().variables}
    )
    assert (settings.device, settings.dtype, settings.threads) == ("cuda", "float16", 4)


def test_the_example_of_tokens_has_the_shape_of_a_tokens_file_and_no_token(
    rendered: dict[str, Overlay], tmp_path: Path
) -> None:
    secret = rendered["cpu"].find("Secret", "quickfix-tokens")
    assert secret is not None
    path = tmp_path / "tokens.yaml"
    path.write_text(secret.data["tokens.yaml"], encoding="utf-8")
    (entry,) = FileTokens(path).entries()
    assert entry.role == "operator"
    assert set(entry.sha256) == {"0"}


def test_the_command_says_how_many_objects_were_looked_at() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tools.k8s"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    said = dict(line.split(": ", 1) for line in run.stdout.splitlines() if ": " in line)
    assert set(said) >= set(OVERLAYS)
    assert all(said[name].endswith("0 findings") for name in OVERLAYS)
