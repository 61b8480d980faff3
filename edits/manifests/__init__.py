"""Manifests: what an operator writes, its one canonical form, and the sets that are published."""

from edits.manifests.canonical import canonical_bytes, canonical_json, digest
from edits.manifests.catalog import catalog, catalog_entry
from edits.manifests.directory import (
    ManifestSet,
    SignedFiles,
    directory_digest,
    load_directory,
    load_signed_set,
)
from edits.manifests.parse import load_manifest, parse_manifest
from edits.manifests.revision import DEFAULT_POLICY, RevisionContent
from edits.manifests.schema import Accept, Choice, ConceptEdit, Metadata, Method, Spec

__all__ = [
    "DEFAULT_POLICY",
    "Accept",
    "Choice",
    "ConceptEdit",
    "ManifestSet",
    "Metadata",
    "Method",
    "RevisionContent",
    "SignedFiles",
    "Spec",
    "canonical_bytes",
    "canonical_json",
    "catalog",
    "catalog_entry",
    "digest",
    "directory_digest",
    "load_directory",
    "load_manifest",
    "load_signed_set",
    "parse_manifest",
]
