"""From a manifest to what the method computes."""

from edits.errors import FingerprintMismatch
from edits.manifests import ConceptEdit
from edits.method import EditSpec, parse_sites


def edit_spec(manifest: ConceptEdit) -> EditSpec:
    """The edit that a manifest asks for. Raises SiteUnknown for neither a preset nor a path."""
    spec = manifest.spec
    return EditSpec(
        name=manifest.metadata.name,
        concept=spec.concept,
        anchor=spec.anchor,
        aliases=tuple(spec.aliases),
        kind=spec.type,
        preserve=tuple(spec.preserve),
        sites=parse_sites(spec.method.sites),
        tokens=spec.method.tokens,
        ridge=spec.method.ridge,
        preserve_weight=spec.method.preserve_weight,
        parity=spec.method.parity,
    )


def check_base(manifest: ConceptEdit, fingerprint: str) -> None:
    """Raise FingerprintMismatch if the manifest names another base model than `fingerprint`."""
    if manifest.spec.base is not None and manifest.spec.base != fingerprint:
        raise FingerprintMismatch(
            f"edit {manifest.metadata.name!r} is for base model {manifest.spec.base}, "
            f"the loaded one is {fingerprint}; publish an edit made for this model",
            param="spec.base",
        )
