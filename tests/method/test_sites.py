import pytest

from edits.errors import SiteUnknown
from edits.method import PRESETS, QUICKFIX, Site, parse_sites, resolve
from edits.method.sites import canonical, expand

from .conftest import NestedEncoder

FLAT = Site("text_encoder", "encoder.layers.0.self_attn.out_proj")


def test_the_preset_is_the_first_self_attentions_output(pristine):
    assert parse_sites("quickfix") == PRESETS["quickfix"]
    assert expand(PRESETS["quickfix"], {"text_encoder": pristine.text_encoder}) == (QUICKFIX,)
    assert str(QUICKFIX) == "text_encoder:text_model.encoder.layers.0.self_attn.out_proj"


def test_paths_are_parsed_sorted_and_without_repeats():
    names = ["text_encoder:b.c", "text_encoder:a", "text_encoder:b.c"]
    assert parse_sites(names) == (Site("text_encoder", "a"), Site("text_encoder", "b.c"))
    assert parse_sites(str(QUICKFIX)) == (QUICKFIX,)


@pytest.mark.parametrize("names", ["quick", "text_encoder:", ":path", ["quickfix"], []])
def test_what_is_neither_preset_nor_path_is_refused(names):
    with pytest.raises(SiteUnknown, match="quickfix") as caught:
        parse_sites(names)
    assert caught.value.param == "spec.method.sites"


@pytest.mark.parametrize("site", [QUICKFIX, FLAT])
def test_a_site_is_found_on_both_layouts(pristine, site):
    layer = pristine.text_encoder.encoder.layers[0].self_attn.out_proj
    nested = NestedEncoder(pristine.text_encoder)
    assert resolve(pristine.text_encoder, site) is layer
    assert resolve(nested, site) is layer
    assert canonical(pristine.text_encoder, site) == canonical(nested, site) == QUICKFIX


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("text_model.encoder.layers.99.self_attn.out_proj", QUICKFIX.path),
        ("nonsense", "text_model.encoder.layers.0.self_attn"),
        ("text_model.encoder.layers.0.self_attn", "text_model.encoder.layers.0.self_attn"),
        ("text_model.encoder.layers.0.layer_norm1", "text_model.encoder.layers.0.self_attn"),
    ],
)
def test_an_unknown_site_is_refused_naming_what_exists(pristine, nested, path, known):
    encoder = NestedEncoder(pristine.text_encoder) if nested else pristine.text_encoder
    with pytest.raises(SiteUnknown) as caught:
        resolve(encoder, Site("text_encoder", path))
    assert repr(path) in caught.value.message
    assert known in caught.value.message
    assert caught.value.param == "spec.method.sites"


def test_another_component_is_refused(pristine):
    with pytest.raises(SiteUnknown, match="text_encoder"):
        expand([Site("vae", QUICKFIX.path)], {"text_encoder": pristine.text_encoder})


def test_patterns_name_every_layer_that_matches(pristine):
    modules = {"text_encoder": pristine.text_encoder, "unet": pristine.unet}
    found = expand(PRESETS["uce"], modules)
    attentions = [n for n, _ in pristine.unet.named_modules() if n.endswith("attn2")]
    assert {str(site) for site in found} == {
        f"unet:{name}.{leaf}" for name in attentions for leaf in ("to_k", "to_v")
    }
    assert len(found) == 2 * len(attentions) > 2
    with pytest.raises(SiteUnknown, match="no linear layer of unet"):
        expand([Site("unet", "*.nowhere")], modules)
