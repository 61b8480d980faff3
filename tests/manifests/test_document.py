"""Hostile and ambiguous documents are refused before any of them is expanded."""

import json
import time
import tracemalloc

import pytest
import yaml

from edits.errors import ManifestInvalid
from edits.manifests import parse_manifest
from edits.manifests.document import MAX_BYTES, read_document

BOMB = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(20)
)


def refusal(body):
    with pytest.raises(ManifestInvalid) as refused:
        read_document(body)
    return refused.value


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ("spec:\n  concept: a\n  concept: b\n", "spec.concept", "the key stands twice"),
        ('{"spec": 1, "spec": 2}', "spec", "the key stands twice"),
        ("spec: &anchor {concept: a}\n", "spec", "line 1 uses a YAML anchor or alias"),
        (BOMB, "a", "line 1 uses a YAML anchor or alias"),
        ("concept: !!python/object:os.system a\n", "concept", "uses the YAML tag"),
        ("concept: !!binary aGk=\n", "concept", "uses the YAML tag"),
        ("? [a, b]\n: 1\n", None, "keys are plain words"),
        ("a: .nan\n", "a", "is not a finite number"),
        ("a: -.inf\n", "a", "is not a finite number"),
        ("a: 1e999\n", "a", "is not a finite number"),
        ('{"a": NaN}', None, "NaN is not a finite number"),
        ('{"a": -Infinity}', None, "-Infinity is not a finite number"),
        ('{"a": 1e999}', "a", "is not a finite number"),
        ('{"a": ' + "9" * 5000 + "}", None, "a number of 5000 characters is out of range"),
        ("a: " + "9" * 5000, "a", "a number of 5000 characters is out of range"),
        ('{"a": "\\ud800"}', "a", "half a character"),
        ('{"\\ud800": 1}', None, "half a character"),
        ("", None, "the manifest is empty"),
        ("# only a comment\n", None, "the manifest is empty"),
        ("null", None, "this document is empty"),
        ("- a\n- b\n", None, "this document is a list"),
        ("just words", None, "this document is a str"),
        ("a: 1\n---\na: 2\n", None, "holds several documents"),
        ("a: b: c", None, "at line 1, column 5"),
        ('{"a": 1', None, "not valid YAML or JSON"),
        ("a: [1, 2", None, "not valid YAML or JSON"),
        ("a: \x00", None, "not valid YAML or JSON"),
        (b"a: \xff\xfe", None, "a manifest is UTF-8 text"),
        ("a: \ud800", None, "a manifest is UTF-8 text"),
        ("a: [" * 30, "a.0.a.0", "nests deeper than 20 levels"),
        ('{"a":' * 5000, None, "nests deeper than 20 levels"),
        ("[" * 200_000, "0.0.0.0", "nests deeper than 20 levels"),
        ({"a": {1: 2}}, "a", "the key 1 is not text"),
        ({"a": {1, 2}}, "a", "a set is not a manifest value"),
        ({"a": b"bytes"}, "a", "a bytes is not a manifest value"),
    ],
)
def test_a_document_that_readers_could_take_differently_is_refused(body, param, words):
    error = refusal(body)
    assert words in error.message
    assert error.param == param
    assert len(error.message) < 300


def test_a_mapping_that_contains_itself_is_refused():
    loop = {}
    loop["a"] = loop
    assert "nests deeper than 20 levels" in refusal(loop).message


def test_a_document_over_the_size_limit_is_refused_and_one_at_the_limit_is_read():
    body = b"a: " + b"x" * (MAX_BYTES - 3)
    assert len(read_document(body)["a"]) == MAX_BYTES - 3
    assert f"has {MAX_BYTES + 1} bytes; at most {MAX_BYTES}" in refusal(body + b"x").message


@pytest.mark.parametrize(
    "body",
    [BOMB, "[" * MAX_BYTES, "{" * MAX_BYTES, '{"a":' * 50_000, "? " * 100_000, "- " * 100_000],
    ids=["bomb", "lists", "braces", "objects", "keys", "items"],
)
def test_a_hostile_document_costs_little(body):
    tracemalloc.start()
    start = time.perf_counter()
    refusal(body)
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 1
    assert peak < 50 * 2**20


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("2026-01-01", "2026-01-01"),
        ("1:30", "1:30"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("true", True),
        ("~", None),
        ("", None),
        ("010", 10),
        ("-3", -3),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_plain_scalars_follow_the_core_schema(scalar, value):
    read = read_document(f"a: {scalar}")["a"]
    assert read == value
    assert type(read) is type(value)


def test_the_same_document_reads_the_same_as_yaml_json_bytes_text_and_mapping(pistol):
    forms = [
        pistol,
        json.dumps(pistol),
        json.dumps(pistol, indent="\t").encode(),
        yaml.safe_dump(pistol),
        yaml.safe_dump(pistol, default_flow_style=True).encode(),
        "\ufeff" + yaml.safe_dump(pistol),
    ]
    assert {parse_manifest(form) for form in forms} == {parse_manifest(pistol)}
    assert all(read_document(form) == pistol for form in forms)
