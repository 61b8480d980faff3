"""JSON bodies: limits that hold before the parser, and one reading of every body."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.json_text import MAX_DEPTH, read_json
from service.errors import RequestInvalid

MEBIBYTE = 2**20


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


def mixed(levels: int) -> bytes:
    pairs, odd = divmod(levels, 2)
    return b"[" * odd + b'[{"a":' * pairs + b"1" + b"}]" * pairs + b"]" * odd


TEXT = st.text().filter(lambda text: "\0" not in text)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@given(JSON)
def test_what_json_can_say_is_read_as_it_is(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        try:
            data = text.encode()
        except UnicodeEncodeError:
            continue  # half a character, which no file has
        assert read_json(data) == value


@pytest.mark.parametrize(
    "shape",
    [
        nested,
        lambda levels: b'{"a":' * levels + b"1" + b"}" * levels,
        mixed,
        lambda levels: b"[[],[[]]," + nested(levels - 1) + b"]",
        lambda levels: b'["\\\\",' + nested(levels - 1) + b"]",
    ],
)
def test_the_deepest_body_is_read_and_one_level_more_is_refused(shape) -> None:
    assert read_json(shape(MAX_DEPTH))
    with pytest.raises(RequestInvalid, match=f"{MAX_DEPTH} levels"):
        read_json(shape(MAX_DEPTH + 1))


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": "' + b"[" * 1000 + b'"}',
        b'{"a": "\\"' + b"{" * 1000 + b'"}',
        b'{"a": "\\\\\\"' + b"[" * 1000 + b'\\n"}',
    ],
)
def test_brackets_in_a_string_are_no_levels(body: bytes) -> None:
    assert len(read_json(body)["a"]) >= 1000


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b'{"prompt": "a cat", "prompt": "a pistol"}', "twice"),
        (b'[{"a": {"b": 1, "b": 1}}]', "twice"),
        (b'{"a": NaN}', "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"[-Infinity]", "Infinity"),
        (b"[1e999]", "out of range"),
        (b"[" + b"9" * 5000 + b"]", "out of range"),
        (b'["\\u0000"]', "null character"),
        (b'["\xff"]', "UTF-8"),
        ('["a"]'.encode("utf-16"), "UTF-8"),
        (b'\xef\xbb\xbf{"a": 1}', "BOM"),
        (b'["\x00"]', "control character"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{} {}", "not JSON"),
        (b"{'a': 1}", "not JSON"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(body: bytes, word: str) -> None:
    with pytest.raises(RequestInvalid, match=word) as refused:
        read_json(body)
    assert "pistol" not in refused.value.message


@pytest.mark.parametrize(
    "body",
    [
        b"[" * MEBIBYTE,
        b'{"a":' * (MEBIBYTE // 5),
        b"]" * MEBIBYTE,
        b"[{" * (MEBIBYTE // 2),
        b'"' * MEBIBYTE,
        b'"' + b'\\"' * (MEBIBYTE // 2 - 1),
        b"\\" * MEBIBYTE,
        b"1" * MEBIBYTE,
        b"[" + (nested(MAX_DEPTH + 1) + b",") * (MEBIBYTE // (2 * MAX_DEPTH + 3)) + b"1]",
    ],
    ids=lambda body: body[:6].decode(),
)
def test_a_hostile_mebibyte_costs_less_than_a_second_of_work(body: bytes) -> None:
    started = time.process_time()
    with pytest.raises(RequestInvalid):
        read_json(body)
    assert time.process_time() - started < 1.0
