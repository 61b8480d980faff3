"""From a manifest to what the method computes."""

from collections.abc import Mapping
from dataclasses import fields, replace

from edits.errors import FingerprintMismatch
from edits.manifests import Choice, ConceptEdit
from edits.method import PRESETS, EditSpec, Site, parse_sites
from edits.method.spec import PRESET_SETTINGS

OPEN_FIELDS = tuple(Choice.model_fields)


def edit_spec(
    manifest: ConceptEdit,
    presets: Mapping[str, tuple[Site, ...]] = PRESETS,
    choice: Choice | None = None,
) -> EditSpec:
    """The edit that a manifest asks for. Raises SiteUnknown for neither a preset nor a site.

    `presets` are the model's own: what each preset's name stands for (`ModelDefaults.presets`).
    `parity` keeps the paper's site, since it reproduces the released code. What the manifest leaves
    open is taken from `choice`, else from the preset, else it is the method's default.
    """
    spec = manifest.spec
    sites = parse_sites(spec.method.sites, PRESETS if spec.method.parity else presets)
    preset = spec.method.sites if isinstance(spec.method.sites, str) else ""
    settings = dict(PRESET_SETTINGS.get(preset, {}))
    if choice is not None:
        settings |= choice.model_dump()
    settings |= spec.method.model_dump(include=set(OPEN_FIELDS), exclude_none=True)
    made = EditSpec(
        name=manifest.metadata.name,
        concept=spec.concept,
        anchor=spec.anchor,
        aliases=tuple(spec.aliases),
        kind=spec.type,
        preserve=tuple(spec.preserve),
        sites=sites,
        parity=spec.method.parity,
    )
    known = {field.name for field in fields(EditSpec)}
    return replace(made, **{name: value for name, value in settings.items() if name in known})  # type: ignore[arg-type]


def is_open(manifest: ConceptEdit) -> bool:
    """Whether the manifest leaves any setting to be chosen.

    A preset of another method is that method with its own settings, and parity is the released
    code: nothing is chosen for them.
    """
    method = manifest.spec.method
    if method.parity or (isinstance(method.sites, str) and method.sites in PRESET_SETTINGS):
        return False
    return any(getattr(method, name) is None for name in OPEN_FIELDS)


def choice_of(spec: EditSpec) -> Choice:
    """The settings of a spec, to be stored beside its manifest."""
    return Choice(**{name: getattr(spec, name) for name in OPEN_FIELDS})


def check_base(manifest: ConceptEdit, fingerprint: str) -> None:
    """Raise FingerprintMismatch if the manifest names another base model than `fingerprint`."""
    if manifest.spec.base is not None and manifest.spec.base != fingerprint:
        raise FingerprintMismatch(
            f"edit {manifest.metadata.name!r} is for base model {manifest.spec.base}, "
            f"the loaded one is {fingerprint}; publish an edit made for this model",
            param="spec.base",
        )
