"""Every field's bounds, and the message that its violation gives."""

import pytest
from pydantic import ValidationError

from edits.errors import ManifestInvalid
from edits.manifests import ConceptEdit, Metadata, Method, Spec, parse_manifest


def refusal(document):
    with pytest.raises(ManifestInvalid) as refused:
        parse_manifest(document)
    return refused.value


def test_the_contract_example_is_accepted_with_defaults_filled_in(pistol):
    edit = parse_manifest(pistol)
    assert (edit.name, edit.version, edit.spec.concept, edit.spec.anchor) == (
        "remove-pistol",
        1,
        "pistol",
        "toy",
    )
    assert edit.spec.aliases == ("gun", "handgun")
    assert edit.spec.method == Method(sites="quickfix", tokens="last", ridge=0.01)
    assert edit.spec.method.preserve_weight is None
    assert edit.spec.accept.images == 0
    assert (edit.spec.base, edit.spec.mandatory, edit.spec.method.parity) == (None, False, False)


def test_the_smallest_manifest_needs_name_version_concept_anchor_and_type():
    edit = parse_manifest(
        {
            "apiVersion": "quickfix/v1",
            "kind": "ConceptEdit",
            "metadata": {"name": "a", "version": 1},
            "spec": {"concept": "x", "anchor": "y", "type": "style"},
        }
    )
    assert (edit.metadata.owner, edit.metadata.reason, edit.spec.aliases) == ("", "", ())
    assert edit.spec.accept is None


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("apiVersion", "quickfix/v2", "must be 'quickfix/v1', not \"quickfix/v2\""),
        ("kind", "Edit", "must be 'ConceptEdit'"),
        ("metadata", None, "must be a mapping of fields, not null"),
        ("metadata.name", "Remove Pistol", "lower-case letters, digits and inner hyphens"),
        ("metadata.name", "x" * 64, "1 to 63"),
        ("metadata.name", "-x", "inner hyphens"),
        ("metadata.version", 0, "must be at least 1, not 0"),
        ("metadata.version", True, "must be a whole number, not true"),
        ("metadata.version", "1", 'must be a whole number, not "1"'),
        ("metadata.version", 1.5, "must be a whole number, not 1.5"),
        ("metadata.version", 2**31, "must be at most 2147483647"),
        ("metadata.owner", "o" * 121, "has 121 characters; shorten it to at most 120"),
        ("metadata.reason", "r" * 1001, "shorten it to at most 1000"),
        ("spec.concept", "", "is empty"),
        ("spec.concept", " \t ", "is empty"),
        ("spec.concept", "x" * 121, "has 121 characters; shorten it to at most 120"),
        ("spec.concept", 1984, "must be text, not 1984; put it in quotes"),
        ("spec.concept", ["pistol"], "must be text, not a list"),
        ("spec.anchor", "x" * 121, "has 121 characters"),
        ("spec.aliases", "gun", 'must be a list, not "gun"'),
        ("spec.aliases", [f"gun {n}" for n in range(65)], "has 65 entries; keep at most 64"),
        ("spec.preserve", [f"p {n}" for n in range(1001)], "has 1001 entries; keep at most 1000"),
        ("spec.type", "weapon", "must be 'object', 'style' or 'fact', not \"weapon\""),
        ("spec.base", "sha256:12", "64 lower-case hexadecimal digits"),
        ("spec.mandatory", 1, "must be true or false, not 1"),
        ("spec.method.ridge", 0, "must be greater than 0, not 0"),
        ("spec.method.ridge", -0.5, "must be greater than 0, not -0.5"),
        ("spec.method.ridge", 1e17, "must be at most 1000000000, not 1e+17"),
        ("spec.method.preserve_weight", 1e10, "must be at most 1000000000"),
        ("spec.method.pad_weight", 1e300, "must be at most 1000000000"),
        ("spec.method.ridge", True, "must be a number, not true"),
        ("spec.method.ridge", "0.01", 'must be a number, not "0.01"'),
        ("spec.method.ridge", float("nan"), "is not a finite number"),
        ("spec.method.ridge", float("inf"), "is not a finite number"),
        ("spec.method.preserve_weight", -1, "must be at least 0, not -1"),
        ("spec.method.tokens", "first", "must be 'last' or 'last+pad'"),
        ("spec.method.sites", [], "must list 1 to 256 sites, each once"),
        ("spec.method.sites", ["a.b", "a.b"], "each once"),
        ("spec.method.sites", "a b", "'a b' is not a site name"),
        ("spec.method.sites", 7, "7 is not a site name"),
        ("spec.accept.max_drop", 1.01, "must be at most 1, not 1.01"),
        ("spec.accept.max_target_rate", -0.1, "must be at least 0, not -0.1"),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_field(changed, path, value, words):
    error = refusal(changed(path, value))
    assert error.param == path
    assert error.message.startswith(f"{path}: ")
    assert words in error.message


@pytest.mark.parametrize(
    ("path", "value", "param", "words"),
    [
        ("spec.anchr", "toy", "spec.anchr", "did you mean 'anchor'?"),
        ("metadata.ownr", "me", "metadata.ownr", "did you mean 'owner'?"),
        ("spec.method.rigde", 1, "spec.method.rigde", "did you mean 'ridge'?"),
        ("spec.accept.maxdrop", 1, "spec.accept.maxdrop", "did you mean 'max_drop'?"),
        ("api_version", "quickfix/v1", "api_version", "did you mean 'apiVersion'?"),
        ("spec.zzz", 1, "spec.zzz", "remove it. Known fields here: accept, aliases, anchor"),
    ],
)
def test_an_unknown_field_is_named_with_the_known_ones_close_to_it(
    changed, path, value, param, words
):
    error = refusal(changed(path, value))
    assert error.param == param
    assert words in error.message


def test_a_misspelt_field_is_reported_rather_than_the_one_it_leaves_missing(pistol):
    pistol["spec"]["anchr"] = pistol["spec"].pop("anchor")
    assert refusal(pistol).param == "spec.anchr"


def test_a_missing_field_is_named(pistol):
    del pistol["spec"]["anchor"]
    error = refusal(pistol)
    assert (error.param, error.message) == ("spec.anchor", "spec.anchor: is missing; add it")


@pytest.mark.parametrize("anchor", ["pistol", "PISTOL", "  Pistol ", "handgun", "Handgun"])
def test_an_anchor_that_is_the_concept_or_an_alias_is_refused(changed, anchor):
    error = refusal(changed("spec.anchor", anchor))
    assert error.param == "spec.anchor"
    assert "is the concept or one of its aliases" in error.message


def test_white_space_and_case_do_not_hide_an_equal_anchor(changed):
    document = changed("spec.concept", "van  Gogh")
    document["spec"]["anchor"] = "Van gogh"
    assert refusal(document).param == "spec.anchor"


@pytest.mark.parametrize("aliases", [["gun", "GUN"], ["gun", "gun"], ["Pistol"]])
def test_an_alias_that_repeats_a_word_is_refused(changed, aliases):
    assert refusal(changed("spec.aliases", aliases)).param == "spec.aliases"


def test_a_preserve_caption_that_is_being_removed_is_refused(changed):
    error = refusal(changed("spec.preserve", ["knife", "Gun"]))
    assert error.message == "spec.preserve: 'Gun' is what the edit removes; leave it out"


@pytest.mark.parametrize(
    ("character", "code"),
    [
        ("\u200b", "U+200B (ZERO WIDTH SPACE)"),
        ("\u202e", "U+202E (RIGHT-TO-LEFT OVERRIDE)"),
        ("\u00ad", "U+00AD (SOFT HYPHEN)"),
        ("\u3164", "U+3164 (HANGUL FILLER)"),
        ("\ufe0f", "U+FE0F (VARIATION SELECTOR-16)"),
        ("\x07", "U+0007 (control character)"),
        ("\n", "U+000A (control character)"),
        ("\u2028", "U+2028 (LINE SEPARATOR)"),
    ],
)
@pytest.mark.parametrize("field", ["concept", "anchor"])
def test_characters_that_cannot_be_seen_are_refused_by_name(changed, field, character, code):
    error = refusal(changed(f"spec.{field}", f"pis{character}tol"))
    assert error.param == f"spec.{field}"
    assert f"the invisible character {code} at position 4; remove it" in error.message


def test_an_invisible_character_inside_a_list_is_named_by_its_place(changed):
    assert refusal(changed("spec.aliases", ["gun", "hand\u200bgun"])).param == "spec.aliases.1"


def test_one_spelling_is_kept_of_text_that_looks_the_same(changed):
    decomposed = parse_manifest(changed("spec.concept", " cafe\u0301  noir "))
    assert decomposed.spec.concept == "caf\u00e9 noir"


def test_a_reason_of_several_lines_becomes_one(changed):
    edit = parse_manifest(changed("metadata.reason", "weapons policy\n  section 4.2\n"))
    assert edit.metadata.reason == "weapons policy section 4.2"


def test_sites_may_be_a_preset_a_path_or_several_paths(changed):
    paths = ["text_encoder:text_model.encoder.layers.0.self_attn.out_proj", "unet:mid.to_k"]
    assert parse_manifest(changed("spec.method.sites", paths[0])).spec.method.sites == paths[0]
    assert parse_manifest(changed("spec.method.sites", paths)).spec.method.sites == tuple(paths)


def test_values_are_frozen_hashable_and_strict_in_python_too(pistol):
    edit = parse_manifest(pistol)
    with pytest.raises(ValidationError, match="frozen"):
        edit.spec = None
    assert len({edit, parse_manifest(pistol)}) == 1
    assert edit == ConceptEdit(
        apiVersion="quickfix/v1", kind="ConceptEdit", metadata=edit.metadata, spec=edit.spec
    )
    with pytest.raises(ValidationError, match="valid integer"):
        Metadata(name="a", version=True)
    assert Spec(concept="x", anchor="y", type="fact", aliases=["z"]).aliases == ("z",)
