"""From a manifest to what the method computes."""

from edits.errors import FingerprintMismatch
from edits.manifests import ConceptEdit
from edits.method import EditSpec, Site, parse_sites


def edit_spec(manifest: ConceptEdit, default_sites: tuple[Site, ...] = ()) -> EditSpec:
    """The edit that a manifest asks for. Raises SiteUnknown for neither a preset nor a path.

    `default_sites` are the model's own, which the preset `quickfix` stands for; `parity` keeps the
    paper's site, since it reproduces the released code.
    """
    spec = manifest.spec
    sites = parse_sites(spec.method.sites)
    if default_sites and spec.method.sites == "quickfix" and not spec.method.parity:
        sites = default_sites
    return EditSpec(
        name=manifest.metadata.name,
        concept=spec.concept,
        anchor=spec.anchor,
        aliases=tuple(spec.aliases),
        kind=spec.type,
        preserve=tuple(spec.preserve),
        sites=sites,
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
