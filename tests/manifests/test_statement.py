"""What is signed: one sequence of bytes per statement, and nothing else is read as one."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edits.errors import ReplayRefused, StatementInvalid
from edits.manifests import canonical_json
from edits.manifests.statement import (
    MAX_SEQUENCE,
    RevisionStatement,
    moment_text,
    parse_moment,
)

CONTENT = "sha256:" + "c" * 64
OTHER = "sha256:" + "d" * 64
EXPIRES = datetime(2027, 1, 31, 12, 0, 0, tzinfo=UTC)
STATEMENT = RevisionStatement(7, CONTENT, EXPIRES)


def test_the_signed_bytes_are_these():
    assert STATEMENT.canonical_bytes() == (
        b'{"apiVersion":"quickfix/v1","content":"' + CONTENT.encode() + b'",'
        b'"expires":"2027-01-31T12:00:00Z","kind":"RevisionStatement","sequence":7}'
    )


@given(
    st.integers(1, MAX_SEQUENCE),
    st.binary(min_size=32, max_size=32),
    st.datetimes(min_value=datetime(1900, 1, 1), timezones=st.timezones()),
)
def test_every_statement_reads_back_as_itself(sequence, content, expires):
    try:
        whole = expires.replace(microsecond=0).astimezone(UTC)
    except OverflowError:
        return
    statement = RevisionStatement(sequence, f"sha256:{content.hex()}", whole)
    assert RevisionStatement.from_bytes(statement.canonical_bytes()) == statement


def test_an_expiry_in_another_zone_is_the_same_statement():
    zone = timezone(timedelta(hours=5, minutes=30))
    assert RevisionStatement(7, CONTENT, EXPIRES.astimezone(zone)) == STATEMENT


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"sequence": 0}, "sequence", "the sequence 0 is not a whole number from 1 to 2147483647"),
        ({"sequence": MAX_SEQUENCE + 1}, "sequence", "the sequence 2147483648 is not"),
        ({"sequence": True}, "sequence", "the sequence True is not"),
        ({"sequence": 7.0}, "sequence", r"the sequence 7\.0 is not"),
        ({"content": "c" * 64}, "content", "is not 'sha256:' and 64 lower-case"),
        ({"content": CONTENT.upper()}, "content", "is not 'sha256:' and 64 lower-case"),
        ({"content": CONTENT + "\n"}, "content", "is not 'sha256:' and 64 lower-case"),
        ({"expires": EXPIRES.replace(tzinfo=None)}, "expires", "needs a time zone"),
        ({"expires": EXPIRES.replace(microsecond=1)}, "expires", "whole seconds"),
    ],
)
def test_a_field_out_of_bounds_is_refused(fields, param, words):
    given = {"sequence": 7, "content": CONTENT, "expires": EXPIRES} | fields
    with pytest.raises(StatementInvalid, match=words) as refused:
        RevisionStatement(**given)
    assert refused.value.param == param


def variants():
    data = STATEMENT.canonical_bytes()
    document = json.loads(data)

    def changed(**changes):
        return canonical_json({**document, **changes})

    not_canonical = "the statement is not in canonical form"
    fields = "a statement has exactly the fields apiVersion, content, expires, kind, sequence"
    return {
        "empty": (b"", "the statement is not JSON"),
        "not UTF-8": (b"\xff" + data, "the statement is not JSON"),
        "deeply nested": (b"[" * 1000, "the statement is not JSON"),
        "too long": (b"[" * 100_000, "has 100000 bytes; at most 1024 are read"),
        "no mapping": (b"[]", fields),
        "white space": (data + b"\n", not_canonical),
        "other key order": (
            json.dumps(dict(reversed(document.items())), separators=(",", ":")).encode(),
            not_canonical,
        ),
        "duplicate key": (data.replace(b'{"api', b'{"sequence":7,"api', 1), not_canonical),
        "escaped text": (data.replace(b"quickfix", b"\\u0071uickfix", 1), not_canonical),
        "unknown key": (changed(note="x"), fields),
        "missing key": (
            canonical_json({k: v for k, v in document.items() if k != "expires"}),
            fields,
        ),
        "other kind": (changed(kind="RevisionContent"), "kind must be 'RevisionStatement'"),
        "other version": (changed(apiVersion="quickfix/v2"), "apiVersion must be 'quickfix/v1'"),
        "sequence as text": (changed(sequence="7"), "the sequence '7' is not"),
        "sequence as float": (changed(sequence=7.0), r"the sequence 7\.0 is not"),
        "sequence true": (changed(sequence=True), "the sequence True is not"),
        "content as list": (changed(content=[CONTENT]), "the content"),
        "expires as number": (changed(expires=1), "expires: 1 is not a moment"),
        "expires with offset": (changed(expires="2027-01-31T12:00:00+00:00"), "is not a moment"),
        "expires with fraction": (changed(expires="2027-01-31T12:00:00.0Z"), "is not a moment"),
        "expires on no day": (changed(expires="2027-02-30T12:00:00Z"), "expires: day is out of"),
    }


@pytest.mark.parametrize("name", variants())
def test_bytes_that_are_not_the_canonical_form_of_a_statement_are_refused(name):
    data, words = variants()[name]
    with pytest.raises(StatementInvalid, match=words):
        RevisionStatement.from_bytes(data)


def test_only_the_last_sequence_with_its_own_set_or_a_higher_one_may_follow():
    STATEMENT.require_after(None)
    STATEMENT.require_after((6, OTHER))
    STATEMENT.require_after((7, CONTENT))
    with pytest.raises(ReplayRefused, match="sequence 7 is older than 8"):
        STATEMENT.require_after((8, CONTENT))
    with pytest.raises(ReplayRefused, match=f"sequence 7 was verified before with the set {OTHER}"):
        STATEMENT.require_after((7, OTHER))


def test_moments_have_one_spelling():
    assert parse_moment("2027-01-31T12:00:00Z") == EXPIRES
    assert moment_text(EXPIRES.astimezone(timezone(timedelta(hours=-8)))) == "2027-01-31T12:00:00Z"
    for text in ("2027-01-31", "2027-01-31T12:00:00", "2027-01-31t12:00:00z", "", None, 7):
        with pytest.raises(ValueError, match="is not a moment such as"):
            parse_moment(text)
