"""A small seeded run of benchmarks/api_fuzz.py: what the document allows and what it forbids."""

from pathlib import Path

import pytest

from benchmarks.api_fuzz import LEAKS, Findings, app_schema, fuzz


def test_no_case_of_any_caller_finds_an_answer_that_the_document_does_not_declare(
    tmp_path: Path, sd1_folder: Path
) -> None:
    findings = Findings()
    with app_schema(tmp_path, sd1_folder, findings) as schema:
        fuzz(schema, findings, each=2, number=7)
    assert findings.problems == {}, findings.examples
    assert findings.total >= 150
    assert len(findings.cases) == 21, "every operation was called"
    assert {200, 400, 401, 403, 404, 422} <= set(findings.statuses)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("traceback", 'Traceback (most recent call last):\n  File "x.py", line 3, in f'),
        ("path", "cannot open /srv/models/demo"),
        ("path", "site-packages"),
        ("token", "viewers-own-token-0123456789"),
    ],
)
def test_a_leak_would_be_seen(kind: str, text: str) -> None:
    assert LEAKS[kind].search(text)


@pytest.mark.parametrize("text", ["POST /admin/edits", "path=/v1/models", "https://x.y/usr/a"])
def test_an_address_of_the_api_is_no_leak(text: str) -> None:
    assert not any(pattern.search(text) for pattern in LEAKS.values())
