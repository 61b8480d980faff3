"""A load test with a verdict: what counts as wrong, and what makes the exit code 1."""

import base64
import io
from dataclasses import replace

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from loadtests.drawn import AnswerWrong, Drawn, Repeats, read_answer
from loadtests.thresholds import Outcome, Thresholds

STAMP = {"X-QuickFix-Revision": "3", "X-QuickFix-Digest": "sha256:ab", "X-Request-Id": "r1"}
LIMITS = Thresholds(min_images=10, max_fail_ratio=0.01, max_refused_ratio=0.2, max_p95_ms=2000.0)
GOOD = Outcome(images=99, refused=0, failures=1, p95_ms=2000.0)


def answer(stamp: dict[str, str], colour: str = "red", kind: str = "PNG") -> dict[str, object]:
    chunks = PngInfo()
    for name, text in stamp.items():
        chunks.add_text(name, text)
    buffer = io.BytesIO()
    options = {"pnginfo": chunks} if kind == "PNG" else {}
    Image.new("RGB", (8, 8), colour).save(buffer, kind, **options)
    return {"data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode(), "seed": 1}]}


def test_a_stamped_png_is_read() -> None:
    drawn = read_answer("a cat", 1, STAMP, answer(STAMP))
    assert (drawn.prompt, drawn.seed, drawn.revision) == ("a cat", 1, 3)
    again = read_answer(
        "a cat", 1, STAMP | {"X-Request-Id": "r2"}, answer(STAMP | {"X-Request-Id": "r2"})
    )
    assert again.pixels == drawn.pixels  # another request's id is not another picture


@pytest.mark.parametrize("name", sorted(STAMP))
def test_a_stamp_that_is_missing_or_differs_is_wrong(name: str) -> None:
    without = {key: text for key, text in STAMP.items() if key != name}
    for headers, body in (
        (without, answer(STAMP)),
        (STAMP, answer(without)),
        (STAMP, answer(STAMP | {name: "4"})),
    ):
        with pytest.raises(AnswerWrong, match=name):
            read_answer("a cat", 1, headers, body)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": []},
        {"data": [{"b64_json": "not base64!"}]},
        {"data": [{"b64_json": base64.b64encode(b"\x89PNG\r\n\x1a\nshort").decode()}]},
        answer({}, kind="JPEG"),
        None,
    ],
)
def test_an_answer_without_one_png_is_wrong(body: object) -> None:
    with pytest.raises(AnswerWrong):
        read_answer("a cat", 1, STAMP, body)


def test_a_truncated_png_is_wrong() -> None:
    body = answer(STAMP)
    (item,) = body["data"]  # type: ignore[misc]
    file = base64.b64decode(item["b64_json"])
    with pytest.raises(AnswerWrong):
        read_answer(
            "a cat", 1, STAMP, {"data": [{"b64_json": base64.b64encode(file[:-30]).decode()}]}
        )


def test_the_same_seed_prompt_and_revision_must_repeat() -> None:
    repeats = Repeats()
    first = Drawn("a cat", 1, revision=3, pixels="aa")
    for other in (first, replace(first, revision=4, pixels="bb"), replace(first, seed=2)):
        repeats.check(other)
    assert len(repeats) == 3
    with pytest.raises(AnswerWrong, match="revision 3"):
        repeats.check(replace(first, pixels="bb"))


def test_bounds_hold_when_met_exactly() -> None:
    assert list(LIMITS.breaches(GOOD)) == []


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (replace(GOOD, failures=2), "failed"),
        (replace(GOOD, p95_ms=2000.1), "p95"),
        (replace(GOOD, refused=26), "full queue"),
        (replace(GOOD, images=9, failures=0), "verdict"),
        (Outcome(images=0, refused=0, failures=0, p95_ms=0.0), "verdict"),
    ],
)
def test_each_bound_is_a_breach_of_its_own(outcome: Outcome, word: str) -> None:
    (breach,) = LIMITS.breaches(outcome)
    assert word in breach
