"""Every object has only fields that its kind has: Kubernetes' own schemas, and those of CRDs."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate

from tools.k8s.contract import Contract
from tools.k8s.overlay import Finding, Overlay
from tools.k8s.rendering import FOLDER

__all__ = ["CRD_SCHEMAS", "OLDEST", "check_schemas"]

OLDEST = "1.30"  # preStop.sleep
CRD_SCHEMAS = FOLDER / "schemas"
CLUSTER_WIDE = ("Namespace",)


def check_schemas(overlay: Overlay, _contract: Contract) -> Iterator[Finding]:
    """Valid in strict mode on the oldest and the newest Kubernetes; one namespace, no twins."""
    seen: set[tuple[str, str]] = set()
    namespaces = {manifest.name for manifest in overlay.of("Namespace")}
    for manifest in overlay.manifests:
        text = json.dumps(manifest.body, sort_keys=True)
        yield from (Finding(manifest, field, message) for field, message in _wrong(text))
        if (manifest.kind, manifest.name) in seen:
            yield Finding(manifest, "metadata.name", "another object of this kind has this name")
        seen.add((manifest.kind, manifest.name))
        namespace = manifest.metadata.get("namespace")
        if manifest.kind not in CLUSTER_WIDE and namespace not in namespaces:
            found = ", ".join(sorted(namespaces))
            yield Finding(manifest, "metadata.namespace", f"{namespace} is not here; put: {found}")


@cache
def _wrong(text: str) -> list[tuple[str, str]]:
    """Field and message of what does not fit the schema; once for the same object, it is slow."""
    body = json.loads(text)
    schema = _crd_schema(f"{body.get('apiVersion')}/{body.get('kind')}")
    try:
        if schema is not None:
            jsonschema.Draft202012Validator(schema).validate(body)
        else:
            for version in (OLDEST, kubernetes_validate.latest_version()):
                kubernetes_validate.validate(body, version, strict=True)
    except jsonschema.ValidationError as error:
        # Of alternatives the one that came closest says what is wrong.
        error = jsonschema.exceptions.best_match([error]) or error
        return [(_dotted(error.absolute_path), error.message)]
    except kubernetes_validate.SchemaNotFoundError as error:
        return [("apiVersion", f"{error.message}, nor is there one in k8s/schemas")]
    return []


@cache
def _crd_schema(kind: str) -> dict[str, Any] | None:
    """The schema of `group/version/kind`, from the file that has it as its title."""
    for path in sorted(Path(CRD_SCHEMAS).glob("*.json")):
        schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if schema["title"] == kind:
            return schema
    return None


def _dotted(path: Any) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".") or "(top)"
