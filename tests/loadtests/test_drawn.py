"""One answer against the contract: stamps, size, and the same picture for the same seed."""

import base64
import io
from dataclasses import replace
from random import Random

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from loadtests.drawn import AnswerWrong, Drawn, Repeats, read_answer

STAMP = {"X-QuickFix-Revision": "3", "X-QuickFix-Digest": "sha256:ab", "X-Request-Id": "r1"}


def answer(stamp: dict[str, str], colour: str = "red", kind: str = "PNG") -> dict[str, object]:
    chunks = PngInfo()
    for name, text in stamp.items():
        chunks.add_text(name, text)
    buffer = io.BytesIO()
    options = {"pnginfo": chunks} if kind == "PNG" else {}
    Image.new("RGB", (8, 8), colour).save(buffer, kind, **options)
    file = base64.b64encode(buffer.getvalue()).decode()
    return {"data": [{"b64_json": file, "seed": 1}], "size": "8x8"}


def test_a_stamped_png_is_read() -> None:
    drawn = read_answer("a cat", 1, STAMP, answer(STAMP))
    assert (drawn.prompt, drawn.seed, drawn.revision) == ("a cat", 1, 3)
    again = read_answer(
        "a cat", 1, STAMP | {"X-Request-Id": "r2"}, answer(STAMP | {"X-Request-Id": "r2"})
    )
    assert (
        again.image.tobytes() == drawn.image.tobytes()
    )  # another request's id is not another picture


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
        {"data": [], "size": "8x8"},
        {"data": [{"b64_json": "not base64!"}], "size": "8x8"},
        {
            "data": [{"b64_json": base64.b64encode(b"\x89PNG\r\n\x1a\nshort").decode()}],
            "size": "8x8",
        },
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
    item["b64_json"] = base64.b64encode(file[:-30]).decode()
    with pytest.raises(AnswerWrong, match="no PNG"):
        read_answer("a cat", 1, STAMP, body)


def drawn(colour: tuple[int, int, int] = (10, 20, 30), **fields: object) -> Drawn:
    known = {"prompt": "a cat", "seed": 1, "revision": 3, "digest": "sha256:ab"}
    return Drawn(**{**known, **fields}, image=Image.new("RGB", (8, 8), colour))  # type: ignore[arg-type]


def test_the_same_seed_prompt_and_digest_must_repeat() -> None:
    repeats = Repeats(max_difference=1)
    for other in (
        drawn(),
        drawn((99, 0, 0), revision=4, digest="sha256:cd"),
        drawn((0, 99, 0), seed=2),
        drawn((0, 0, 99), prompt="a dog"),
    ):
        repeats.check(other)
    assert (len(repeats), repeats.compared) == (4, {"sha256:ab": 0, "sha256:cd": 0})
    repeats.check(drawn((11, 19, 30)))  # the last bit, as of another batch
    repeats.check(drawn(revision=7))  # the same content, activated anew
    assert (len(repeats), repeats.compared) == (4, {"sha256:ab": 2, "sha256:cd": 0})
    with pytest.raises(AnswerWrong, match="2/255"):
        repeats.check(drawn((12, 20, 30)))
    with pytest.raises(AnswerWrong, match="255/255"):
        repeats.check(replace(drawn(), image=Image.new("RGB", (9, 8))))


def test_an_image_that_another_digest_draws_otherwise_is_told_apart() -> None:
    repeats = Repeats(max_difference=1)
    repeats.check(drawn())
    repeats.check(drawn((11, 20, 30), revision=4, digest="sha256:cd"))  # the same, but for a bit
    repeats.check(drawn((99, 0, 0), revision=4, digest="sha256:cd", seed=2))  # nothing beside it
    assert repeats.told_apart == 0
    repeats.check(drawn(seed=2))
    assert repeats.told_apart == 1
    repeats.check(drawn(seed=2))  # again is no other one
    assert repeats.told_apart == 1


def test_one_revision_has_one_digest() -> None:
    repeats = Repeats(max_difference=1)
    repeats.check(drawn())
    with pytest.raises(AnswerWrong, match="two digests"):
        repeats.check(drawn(digest="sha256:cd"))


def test_what_is_asked_again_was_drawn_before() -> None:
    repeats = Repeats(max_difference=0)
    assert repeats.again(Random(1)) is None
    repeats.check(drawn(seed=5))
    assert repeats.again(Random(1)) == ("a cat", 5)


def test_a_long_run_keeps_the_newest_images_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtests.drawn._KEPT_BYTES", 3 * 8 * 8 * 3)
    repeats = Repeats(max_difference=0)
    for seed in range(10):
        repeats.check(drawn(seed=seed))
    assert len(repeats) == 3
    repeats.check(drawn((99, 99, 99), seed=0))  # forgotten, so nothing to compare with
    with pytest.raises(AnswerWrong):
        repeats.check(drawn((99, 99, 99), seed=9))


@pytest.mark.parametrize(("asked", "told"), [("16x16", "8x8"), ("", "16x16"), ("16x16", "16x16")])
def test_a_png_of_another_size_is_wrong(asked: str, told: str) -> None:
    body = {**answer(STAMP), "size": told}
    with pytest.raises(AnswerWrong, match="8x8"):
        read_answer("a cat", 1, STAMP, body, size=asked)
