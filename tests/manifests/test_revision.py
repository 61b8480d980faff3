"""A set of edits with policies: what may be in it and how it changes."""

import json

import pytest

from edits.errors import (
    EditConflict,
    EditNotFound,
    FingerprintMismatch,
    ManifestInvalid,
    PolicyNotFound,
)
from edits.manifests import Choice, RevisionContent, canonical_json, parse_manifest

BASE = "sha256:" + "a" * 64
OTHER_BASE = "sha256:" + "b" * 64
CHOICE = {"tokens": "last", "ridge": 0.1, "preserve_weight": 1.0, "pad_weight": 0.5}


def edit(name, version=1, concept=None, **spec):
    return parse_manifest(
        {
            "apiVersion": "quickfix/v1",
            "kind": "ConceptEdit",
            "metadata": {"name": name, "version": version},
            "spec": {"concept": concept or name, "anchor": "thing", "type": "object", **spec},
        }
    )


def names(content):
    return tuple(edit.name for edit in content.edits)


def test_edits_and_policies_are_kept_sorted_so_order_means_nothing():
    one = RevisionContent((edit("b"), edit("a")), {"kids": ("b", "a"), "art": ("a",)})
    two = RevisionContent((edit("a"), edit("b")), {"art": ("a",), "kids": ("a", "b", "a")})
    assert one == two
    assert hash(one) == hash(two)
    assert one.canonical_bytes() == two.canonical_bytes()
    assert names(one) == ("a", "b")
    assert one.policies == {"art": ("a",), "default": ("a", "b"), "kids": ("a", "b")}


def test_without_a_default_policy_default_is_every_edit():
    assert RevisionContent().policies == {"default": ()}
    assert RevisionContent((edit("a"),)).policies == {"default": ("a",)}
    assert RevisionContent((edit("a"),), {"default": ()}).policies == {"default": ()}


def test_policies_cannot_be_changed_in_place():
    content = RevisionContent((edit("a"),))
    with pytest.raises(TypeError, match="does not support item assignment"):
        content.policies["default"] = ()


@pytest.mark.parametrize(
    ("make", "param", "words"),
    [
        (lambda: RevisionContent((edit("a"), edit("a", 2))), "metadata.name", "stands twice"),
        (
            lambda: RevisionContent((edit("a"),), {"kids": ("a", "b")}),
            "policies.kids",
            "names edits that the revision lacks: b",
        ),
        (
            lambda: RevisionContent((edit("a", mandatory=True), edit("b")), {"art": ("b",)}),
            "policies.art",
            "leaves out mandatory edits: a",
        ),
        (
            lambda: RevisionContent((edit("a", mandatory=True),), {"default": ()}),
            "policies.default",
            "leaves out mandatory edits: a",
        ),
        (lambda: RevisionContent((), {"No Label": ()}), "policies", "'No Label'"),
        (lambda: RevisionContent((), {}, "sha256:1"), "fingerprint", "is not 'sha256:'"),
    ],
)
def test_a_set_that_contradicts_itself_is_refused(make, param, words):
    with pytest.raises(ManifestInvalid, match=words) as refused:
        make()
    assert refused.value.param == param


def test_an_edit_for_another_base_model_is_refused():
    bound = edit("a", base=BASE)
    assert RevisionContent((bound,), fingerprint=BASE).edits == (bound,)
    assert RevisionContent((bound,)).edits == (bound,)
    with pytest.raises(FingerprintMismatch, match=f"'a' is for the base model {BASE}"):
        RevisionContent((bound,), fingerprint=OTHER_BASE)


def test_a_new_edit_joins_the_default_policy_only():
    content = RevisionContent((edit("a"),), {"art": ("a",)}, BASE).with_edit(edit("b"))
    assert content.policies == {"art": ("a",), "default": ("a", "b")}
    assert content.fingerprint == BASE


def test_a_mandatory_edit_joins_every_policy():
    content = RevisionContent((edit("a"),), {"art": ("a",), "bare": ()})
    assert content.with_edit(edit("b", mandatory=True)).policies == {
        "art": ("a", "b"),
        "bare": ("b",),
        "default": ("a", "b"),
    }
    stricter = content.with_edit(edit("a", 2, mandatory=True))
    assert stricter.policies["bare"] == ("a",)


def test_a_higher_version_replaces_the_edit_and_keeps_its_policies():
    content = RevisionContent((edit("a"), edit("b")), {"default": ("b",), "art": ("a",)})
    newer = edit("a", 3, concept="other")
    replaced = content.with_edit(newer)
    assert replaced.edit("a") == newer
    assert replaced.policies == {"art": ("a",), "default": ("b",)}


def test_the_same_edit_again_changes_nothing():
    content = RevisionContent((edit("a"),))
    assert content.with_edit(edit("a")) is content


@pytest.mark.parametrize("version", [1, 2])
def test_a_version_that_is_not_higher_conflicts_and_names_the_next(version):
    content = RevisionContent((edit("a", 2),))
    with pytest.raises(EditConflict, match="publish this one as version 3") as refused:
        content.with_edit(edit("a", version, concept="other"))
    assert refused.value.param == "metadata.version"
    assert content.edit("a").spec.concept == "a"


def test_a_withdrawn_edit_leaves_every_policy_and_nothing_else_changes():
    before = RevisionContent((edit("a"),), {"art": ("a",)}, BASE)
    after = before.with_edit(edit("b", mandatory=True)).without_edit("b")
    assert after == before
    assert after.digest() == before.digest()


def test_an_edit_that_is_not_there_is_refused_with_those_that_are():
    content = RevisionContent((edit("a"), edit("b")))
    with pytest.raises(EditNotFound, match="no edit 'c' is active; active: a, b"):
        content.without_edit("c")
    with pytest.raises(EditNotFound, match="active: none"):
        RevisionContent().without_edit("c")


def variants():
    content = RevisionContent((edit("a", mandatory=True), edit("b")), {"art": ("a",)}, BASE)
    data = content.canonical_bytes()
    document = json.loads(data)

    def altered(**changes):
        return canonical_json({**document, **changes})

    return {
        "empty": b"",
        "not JSON": b"{",
        "no mapping": b"[]",
        "white space": data + b"\n",
        "indented": json.dumps(document, indent=1).encode(),
        "duplicate key": data.replace(b'{"apiVersion"', b'{"apiVersion":"x","apiVersion"', 1),
        "unknown key": altered(extra=1),
        "missing key": canonical_json({k: v for k, v in document.items() if k != "fingerprint"}),
        "other kind": altered(kind="ConceptEdit"),
        "edits no list": altered(edits={}),
        "edit no mapping": altered(edits=[1]),
        "edit twice": altered(edits=[document["edits"][0]] * 2),
        "policy no list": altered(policies={"art": "a"}),
        "policy of numbers": altered(policies={"art": [1]}),
        "policy dropped a mandatory edit": altered(policies={"art": ["b"]}),
        "fingerprint no text": altered(fingerprint=1),
        "choices no mapping": altered(choices=[]),
        "choice for no edit": altered(choices={"nobody": CHOICE}),
        "choice with a ridge of 0": altered(choices={"a": CHOICE | {"ridge": 0.0}}),
        "choice without a ridge": altered(choices={"a": {"tokens": "last"}}),
        "not finite": data.replace(b'"ridge":null', b'"ridge":NaN', 1),
        "deep": b"[" * 100_000,
        "not UTF-8": data.replace(b"mandatory", b"\xff", 1),
    }


@pytest.mark.parametrize("name", variants())
def test_bytes_that_the_library_did_not_write_are_refused(name):
    with pytest.raises(ManifestInvalid):
        RevisionContent.from_bytes(variants()[name])


def test_bytes_of_an_older_version_that_lacked_a_field_are_still_read():
    content = RevisionContent((edit("a"),))
    document = json.loads(content.canonical_bytes())
    del document["edits"][0]["spec"]["mandatory"]
    assert RevisionContent.from_bytes(canonical_json(document)) == content


def test_what_was_chosen_for_an_edit_stays_beside_it_and_leaves_with_it():
    choice = Choice(**CHOICE)
    content = RevisionContent((edit("a"),), fingerprint=BASE).with_edit(edit("b"), choice)
    assert content.choices == {"b": choice}
    assert RevisionContent.from_bytes(content.canonical_bytes()) == content
    assert content.with_edit(edit("b"), None) is content, "the same edit again changes nothing"
    assert content.with_edit(edit("b", 2)).choices == {}
    without = content.without_edit("b")
    assert without.choices == {}
    assert b"choices" not in without.canonical_bytes()
    assert content.digest() != content.with_edit(edit("b", 2), choice).digest()


def test_a_policy_is_defined_anew_and_taken_out_as_a_new_value():
    content = RevisionContent((edit("a"), edit("b")))
    strict = content.with_policy("strict", ("b", "a", "b")).with_policy("art", ("a",))
    assert strict.policies == {"art": ("a",), "default": ("a", "b"), "strict": ("a", "b")}
    assert strict.with_policy("strict", ()).policies["strict"] == ()
    assert content.with_policy("default", ("a",)).policies == {"default": ("a",)}
    assert strict.without_policy("strict").without_policy("art") == content


def test_the_default_policy_and_an_unknown_one_cannot_be_taken_out():
    content = RevisionContent((edit("a"),), {"strict": ("a",)})
    with pytest.raises(ManifestInvalid, match="always exists"):
        content.without_policy("default")
    with pytest.raises(PolicyNotFound, match="no policy 'kids' is there; known: default, strict"):
        content.without_policy("kids")
