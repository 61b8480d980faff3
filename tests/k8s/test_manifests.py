"""The Kubernetes base says only what the service understands, and serves only what it says."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from edits.manifests import catalog_entry, parse_manifest
from service.api.auth import FileTokens
from service.settings import Settings

from .. import served

BASE = Path(__file__).resolve().parents[2] / "k8s" / "base"
OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()  # preStop.sleep came with 1.30

Document = dict[str, Any]


def documents_of(path: Path) -> list[Document]:
    return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document]


FILES = sorted(path for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")
DOCUMENTS = [(path.name, document) for path in FILES for document in documents_of(path)]
NAMED = {(document["kind"], document["metadata"]["name"]): document for _, document in DOCUMENTS}
DEPLOYMENT = NAMED["Deployment", "quickfix"]
POD = DEPLOYMENT["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def environment() -> dict[str, str]:
    """The container's QUICKFIX_ variables, with a value of the right kind for field references."""
    values = {
        name: text
        for source in CONTAINER["envFrom"]
        for name, text in NAMED["ConfigMap", source["configMapRef"]["name"]]["data"].items()
    }
    for entry in CONTAINER["env"]:
        values[entry["name"]] = entry.get("value", "2")
    return {name: text for name, text in values.items() if name.startswith("QUICKFIX_")}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize(("name", "document"), DOCUMENTS)
def test_every_document_is_valid_in_strict_mode(
    name: str, document: Document, version: str
) -> None:
    kubernetes_validate.validate(document, version, strict=True)


def test_the_check_catches_a_misspelt_field() -> None:
    service = yaml.safe_load((BASE / "service.yaml").read_text("utf-8"))
    service["spec"]["ports"][0]["targetport"] = 3000
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(service, NEWEST, strict=True)


def test_the_kustomization_lists_every_file_but_examples() -> None:
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text("utf-8"))
    listed = kustomization["resources"]
    assert len(listed) == len(set(listed))
    assert set(listed) == {path.name for path in FILES if ".example." not in path.name}


def test_the_settings_know_every_variable_and_accept_every_value() -> None:
    given = environment()
    assert set(given) <= set(Settings.variables())
    settings = Settings.from_env(given)
    assert str(settings.edits_dir) == "/etc/quickfix/edits"
    assert settings.threads == 2


def test_service_links_do_not_add_variables_that_stop_the_start() -> None:
    assert any(name.lower().startswith("quickfix") for kind, name in NAMED if kind == "Service")
    assert POD["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize("probe", PROBES)
def test_probes_ask_over_http_what_the_service_serves(probe: str) -> None:
    get = CONTAINER[probe]["httpGet"]
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert get["path"] in served.probe_paths()
    assert ports[get["port"]] == served.port() == 3000


def test_a_replica_that_is_not_ready_is_not_killed() -> None:
    paths = {probe: CONTAINER[probe]["httpGet"]["path"] for probe in PROBES}
    assert paths == {
        "startupProbe": "/livez",
        "readinessProbe": "/readyz",
        "livenessProbe": "/livez",
    }
    startup = CONTAINER["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300


def test_the_grace_period_covers_the_longest_request_and_the_drain() -> None:
    settings = Settings.from_env(environment())
    sleep = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert sleep >= 5
    needed = sleep + settings.request_timeout_seconds + settings.drain_seconds
    assert POD["spec"]["terminationGracePeriodSeconds"] >= needed + 5


def test_scrape_annotations_name_the_metrics_route() -> None:
    annotations = POD["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] in served.probe_paths()
    assert annotations["prometheus.io/port"] == str(CONTAINER["ports"][0]["containerPort"])


def test_every_selector_selects_the_pods() -> None:
    labels = POD["metadata"]["labels"].items()
    selectors = [
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        NAMED["Service", "quickfix"]["spec"]["selector"],
        NAMED["PodDisruptionBudget", "quickfix"]["spec"]["selector"]["matchLabels"],
        NAMED["NetworkPolicy", "quickfix"]["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector and selector.items() <= labels


def test_named_ports_exist_in_the_container() -> None:
    names = {port["name"] for port in CONTAINER["ports"]}
    (port,) = NAMED["Service", "quickfix"]["spec"]["ports"]
    assert port["targetPort"] in names
    (rule,) = NAMED["NetworkPolicy", "quickfix"]["spec"]["ingress"]
    assert {entry["port"] for entry in rule["ports"]} <= names


def test_pod_security_is_restricted_and_no_token_is_mounted() -> None:
    pod, own = POD["spec"]["securityContext"], CONTAINER["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] == pod["runAsGroup"] == pod["fsGroup"] == 1034
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert POD["spec"]["automountServiceAccountToken"] is False
    account = NAMED["ServiceAccount", POD["spec"]["serviceAccountName"]]
    assert account["automountServiceAccountToken"] is False


def test_everything_that_is_written_lies_on_a_writable_volume() -> None:
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in CONTAINER["volumeMounts"]}
    assert set(mounts.values()) == set(volumes)
    home = next(entry["value"] for entry in CONTAINER["env"] if entry["name"] == "BENTOML_HOME")
    for path in ("/tmp", home, environment()["QUICKFIX_STATE_DIR"]):
        assert "emptyDir" in volumes[mounts[path]]
        assert volumes[mounts[path]]["emptyDir"]["sizeLimit"]


def test_config_maps_and_secrets_that_volumes_name_are_here() -> None:
    for volume in POD["spec"]["volumes"]:
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in NAMED
        if "secret" in volume:
            assert ("Secret", volume["secret"]["secretName"]) in NAMED
    # A file of a subPath mount never changes: edits would not arrive.
    assert not any("subPath" in mount for mount in CONTAINER["volumeMounts"])


def test_resources_have_requests_and_limits_and_cpu_is_whole() -> None:
    resources = CONTAINER["resources"]
    assert set(resources["requests"]) == set(resources["limits"])
    assert int(resources["limits"]["cpu"]) >= 1  # QUICKFIX_THREADS is made from it


def test_manifests_of_the_edits_map_are_those_of_the_catalog() -> None:
    manifests = NAMED["ConfigMap", "quickfix-edits"]["data"]
    assert manifests
    for name, text in manifests.items():
        edit = parse_manifest(text)
        assert name == f"{edit.name}.yaml"
        assert edit == catalog_entry(edit.name)


def test_the_example_secret_has_the_shape_of_a_tokens_file_and_no_token(tmp_path: Path) -> None:
    text = NAMED["Secret", "quickfix-tokens"]["stringData"]["tokens.yaml"]
    path = tmp_path / "tokens.yaml"
    path.write_text(text, encoding="utf-8")
    (entry,) = FileTokens(path).entries()
    assert entry.role == "operator"
    assert set(entry.sha256) == {"0"}
    mount = next(m for m in CONTAINER["volumeMounts"] if m["name"] == "tokens")
    assert environment()["QUICKFIX_TOKENS_FILE"] == f"{mount['mountPath']}/tokens.yaml"
