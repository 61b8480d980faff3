"""Revision contents for the store's tests: small, valid, and different on demand."""

from edits.manifests import RevisionContent, parse_manifest


def content(*names, concept="pistol"):
    """A set with one edit per name."""
    return RevisionContent(
        tuple(
            parse_manifest(
                {
                    "apiVersion": "quickfix/v1",
                    "kind": "ConceptEdit",
                    "metadata": {"name": name, "version": 1},
                    "spec": {"concept": concept, "anchor": "toy", "type": "object"},
                }
            )
            for name in names
        )
    )
