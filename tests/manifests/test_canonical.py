"""The canonical form depends on the meaning of a manifest and on nothing else."""

import hashlib
import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edits.manifests import (
    RevisionContent,
    canonical_bytes,
    canonical_json,
    digest,
    parse_manifest,
)

# Drawn from letters of three scripts; PyYAML writes these so that every reader takes them as text.
words = st.text(alphabet="abcdefgxyzÄéñжщ日本 '-", min_size=1, max_size=20).filter(
    lambda text: any(character.isalpha() for character in text)
)
labels = st.from_regex(r"[a-z]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
rates = st.floats(0, 1)
positive = st.floats(min_value=1e-12, max_value=1e9)  # the schema bounds ridges


@st.composite
def manifests(draw, names=labels):
    texts = draw(
        st.lists(
            words, min_size=2, max_size=8, unique_by=lambda text: " ".join(text.split()).casefold()
        )
    )
    concept, anchor, *others = texts
    half = len(others) // 2
    spec = {
        "concept": concept,
        "anchor": anchor,
        "type": draw(st.sampled_from(["object", "style", "fact"])),
        "aliases": others[:half],
        "preserve": others[half:],
        "mandatory": draw(st.booleans()),
        "method": draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "sites": st.sampled_from(["quickfix", ["a.0.b", "a.1.b"]]),
                    "tokens": st.sampled_from(["last", "last+pad"]),
                    "ridge": positive,
                    "preserve_weight": st.floats(0, 1e6),
                    "parity": st.booleans(),
                },
            )
        ),
    }
    accept = draw(
        st.none()
        | st.fixed_dictionaries({}, optional={"max_target_rate": rates, "max_drop": rates})
    )
    if accept is not None:
        spec["accept"] = accept
    return {
        "apiVersion": "quickfix/v1",
        "kind": "ConceptEdit",
        "metadata": {
            "name": draw(names),
            "version": draw(st.integers(1, 2**31 - 1)),
            "reason": draw(words),
        },
        "spec": spec,
    }


def shuffled(value, random):
    if isinstance(value, dict):
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffled(value[key], random) for key in keys}
    return value


@given(document=manifests(), random=st.randoms(), flow=st.booleans(), indent=st.booleans())
def test_key_order_and_form_do_not_change_the_digest(document, random, flow, indent):
    other = shuffled(document, random)
    forms = [
        other,
        json.dumps(other, indent=2 if indent else None),
        json.dumps(other, ensure_ascii=False).encode(),
        yaml.safe_dump(other, sort_keys=False, default_flow_style=flow, allow_unicode=True),
    ]
    expected = canonical_bytes(parse_manifest(document))
    assert {canonical_bytes(parse_manifest(form)) for form in forms} == {expected}


@given(document=manifests())
def test_the_canonical_bytes_are_themselves_a_manifest_with_the_same_bytes(document):
    edit = parse_manifest(document)
    again = parse_manifest(canonical_bytes(edit))
    assert again == edit
    assert canonical_bytes(again) == canonical_bytes(edit)


@given(
    documents=st.lists(manifests(), max_size=4, unique_by=lambda it: it["metadata"]["name"]),
    random=st.randoms(),
)
def test_revision_content_survives_the_round_trip_whatever_the_order(documents, random):
    edits = [parse_manifest(document) for document in documents]
    content = RevisionContent(tuple(edits))
    random.shuffle(edits)
    assert RevisionContent(tuple(edits)).canonical_bytes() == content.canonical_bytes()
    again = RevisionContent.from_bytes(content.canonical_bytes())
    assert again == content
    assert again.digest() == content.digest()


@given(documents=st.tuples(manifests(), manifests()))
def test_two_meanings_never_share_a_digest(documents):
    first, second = map(parse_manifest, documents)
    same_bytes = canonical_bytes(first) == canonical_bytes(second)
    assert same_bytes == (first == second)


def test_the_canonical_form_is_pinned_byte_for_byte(pistol):
    """A change here gives every published manifest another digest."""
    data = canonical_bytes(parse_manifest(pistol))
    assert data == (
        b'{"apiVersion":"quickfix/v1","kind":"ConceptEdit","metadata":{"name":"remove-pistol",'
        b'"owner":"trust-and-safety","reason":"weapons policy 4.2","version":1},"spec":{"accept":'
        b'{"images":0,"max_drop":0.03,"max_target_rate":0.05},"aliases":["gun","handgun"],"anchor":"toy",'
        b'"base":null,"concept":"pistol","mandatory":false,"method":{"pad_weight":null,'
        b'"parity":false,"preserve_weight":null,"ridge":0.01,"sites":"quickfix",'
        b'"tokens":"last"},'
        b'"preserve":["knife","robot"],"type":"object"}}'
    )
    assert digest(data) == f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_default_written_out_means_the_same_as_a_default_left_out(pistol):
    short = parse_manifest(pistol)
    pistol["spec"]["method"] |= {"parity": False, "preserve_weight": None}
    pistol["spec"]["mandatory"] = False
    assert canonical_bytes(parse_manifest(pistol)) == canonical_bytes(short)


@pytest.mark.parametrize(("left", "right"), [(0, -0.0), (1, 1.0), (0.1, 0.1000000000000000055)])
def test_numbers_that_are_equal_have_one_spelling(changed, left, right):
    spellings = {
        canonical_bytes(parse_manifest(changed("spec.method.preserve_weight", number)))
        for number in (left, right)
    }
    assert len(spellings) == 1


def test_text_outside_ascii_is_kept_as_utf8():
    assert canonical_json({"b": "é", "a": [1, None]}) == '{"a":[1,null],"b":"é"}'.encode()


def test_numbers_that_are_not_finite_have_no_canonical_form():
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})
