"""The manifests that ship with the package: ready to publish, and examples to copy."""

from functools import cache
from importlib import resources

from edits.errors import EditNotFound
from edits.manifests.parse import parse_manifest
from edits.manifests.schema import ConceptEdit


@cache
def catalog() -> tuple[ConceptEdit, ...]:
    """Every shipped manifest, sorted by name."""
    folder = resources.files("edits.manifests") / "catalog"
    files = (file for file in folder.iterdir() if file.name.endswith(".yaml"))
    return tuple(
        sorted((parse_manifest(file.read_bytes()) for file in files), key=lambda edit: edit.name)
    )


def catalog_entry(name: str) -> ConceptEdit:
    """The shipped manifest of that name. Raises EditNotFound."""
    for edit in catalog():
        if edit.name == name:
            return edit
    known = ", ".join(edit.name for edit in catalog())
    raise EditNotFound(f"the catalog has no edit {name!r:.80}; it holds: {known}", param="name")
