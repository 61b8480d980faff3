import pytest

from edits.errors import FingerprintMismatch, SiteUnknown
from edits.manifests import parse_manifest
from edits.method import QUICKFIX, EditSpec
from edits.plan import check_base, edit_spec

MANIFEST = {
    "apiVersion": "quickfix/v1",
    "kind": "ConceptEdit",
    "metadata": {"name": "remove-pistol", "version": 1},
    "spec": {"concept": "pistol", "aliases": ["gun"], "anchor": "toy", "type": "object"},
}
OURS, OTHERS = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


def manifest(**spec):
    return parse_manifest({**MANIFEST, "spec": MANIFEST["spec"] | spec})


def test_defaults_of_the_manifest_are_those_of_the_method():
    expected = EditSpec("remove-pistol", "pistol", "toy", aliases=("gun",))
    assert edit_spec(manifest()) == expected


def test_every_field_of_the_method_is_carried_over():
    method = {
        "sites": [str(QUICKFIX)],
        "tokens": "last+pad",
        "ridge": 0.2,
        "preserve_weight": 3.0,
        "parity": True,
    }
    spec = edit_spec(manifest(type="style", preserve=["knife"], method=method))
    assert spec == EditSpec(
        "remove-pistol",
        "pistol",
        "toy",
        aliases=("gun",),
        kind="style",
        preserve=("knife",),
        sites=(QUICKFIX,),
        tokens="last+pad",
        ridge=0.2,
        preserve_weight=3.0,
        parity=True,
    )


def test_a_site_that_is_neither_preset_nor_path_is_refused():
    with pytest.raises(SiteUnknown, match="quickfix"):
        edit_spec(manifest(method={"sites": "first-layer"}))


def test_the_base_model_must_be_the_loaded_one_if_named():
    check_base(manifest(), OURS)
    check_base(manifest(base=OURS), OURS)
    with pytest.raises(FingerprintMismatch, match=OTHERS) as caught:
        check_base(manifest(base=OTHERS), OURS)
    assert caught.value.param == "spec.base"
