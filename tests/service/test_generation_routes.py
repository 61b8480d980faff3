"""The public routes: OpenAI's shape, BentoML's style, bounds, stamps, and one error shape."""

import gc
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from service.api.limits import MAX_BODY_BYTES
from service.generation.job import Job
from service.generation.request import Generated
from tests.device import DEVICE

from .pictures import picture, pictures, pixels
from .replica import Replica, manifest

IMAGES = "/v1/images/generations"


def images(replica: Replica, **fields: Any) -> Any:
    return replica.client.post(IMAGES, json={"prompt": "a photo of a cat", **fields})


def test_the_answer_has_openais_shape(shared: Replica) -> None:
    answer = images(shared, n=2, seed=10, size="48x32", user="someone")
    body = answer.json()
    assert set(body) == {"created", "data", "output_format", "size"}
    assert (body["output_format"], body["size"]) == ("png", "48x32")
    assert [item["seed"] for item in body["data"]] == [10, 11]
    assert [image.size for image in pictures(answer)] == [(48, 32), (48, 32)]


def test_image_i_of_n_is_drawn_from_seed_plus_i(shared: Replica) -> None:
    both = pictures(images(shared, n=2, seed=10))
    alone = pictures(images(shared, seed=11))
    assert np.abs(np.asarray(both[1]).astype(int) - np.asarray(alone[0])).max() <= 1
    assert not np.array_equal(np.asarray(both[0]), np.asarray(both[1]))


def test_both_routes_draw_the_same_picture(shared: Replica) -> None:
    one = pixels(shared.draw("a photo of a cat", seed=10))
    (other,) = pictures(images(shared, seed=10))
    assert np.array_equal(one, np.asarray(other))


def test_without_a_seed_every_image_is_another_and_the_seed_is_told(shared: Replica) -> None:
    first, second = (images(shared).json()["data"][0]["seed"] for _ in range(2))
    assert first != second
    again = pictures(images(shared, seed=first))
    assert again[0].size == (32, 32)


def test_headers_and_png_text_carry_the_same_stamp(shared: Replica) -> None:
    answer = shared.client.post(
        "/generate", json={"prompt": "a cat"}, headers={"X-Request-Id": "case-17.a"}
    )
    assert answer.headers["X-Request-Id"] == "case-17.a"
    assert answer.headers["X-QuickFix-Revision"] == "1"
    assert answer.headers["X-QuickFix-Digest"].startswith("sha256:")
    stamped = picture(answer.content).text  # type: ignore[attr-defined]
    for name in ("X-QuickFix-Revision", "X-QuickFix-Digest", "X-Request-Id"):
        assert stamped[name] == answer.headers[name]


def test_a_request_id_that_is_no_plain_token_is_replaced(shared: Replica) -> None:
    answer = shared.client.post(
        "/generate", json={"prompt": "a cat"}, headers={"X-Request-Id": "a b<script>"}
    )
    assert len(answer.headers["X-Request-Id"]) == 32


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_files_have_the_format_that_was_asked_for(shared: Replica, kind: str) -> None:
    answer = images(shared, output_format=kind, response_format="b64_json")
    (image,) = pictures(answer)
    assert (image.format or "").lower() == kind
    assert answer.headers["X-QuickFix-Revision"] == "1"


def test_guidance_and_the_negative_prompt_matter(shared: Replica) -> None:
    plain = pixels(shared.draw("a cat", guidance_scale=4.0))
    assert not np.array_equal(plain, pixels(shared.draw("a cat", guidance_scale=6.0)))
    assert not np.array_equal(
        plain, pixels(shared.draw("a cat", guidance_scale=4.0, negative_prompt="a robot"))
    )


BAD: list[tuple[dict[str, Any], str | None]] = [
    ({"prompt": ""}, "prompt"),
    ({"prompt": "  \n"}, "prompt"),
    ({"prompt": 5}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"prompt": ["a cat"]}, "prompt"),
    ({"prompt": "cat " * 23}, "prompt"),
    ({"prompt": "x" * 10_001}, "prompt"),
    ({"negative_prompt": "cat " * 23}, "negative_prompt"),
    ({"size": "0x0"}, "size"),
    ({"size": "33x32"}, "size"),
    ({"size": "8x8"}, "size"),
    ({"size": "1024x1024"}, "size"),
    ({"size": "big"}, "size"),
    ({"n": 0}, "n"),
    ({"n": 11}, "n"),
    ({"n": "2"}, "n"),
    ({"n": True}, "n"),
    ({"n": 1.5}, "n"),
    ({"steps": 0}, "steps"),
    ({"steps": 151}, "steps"),
    ({"guidance_scale": -1}, "guidance_scale"),
    ({"guidance_scale": 31}, "guidance_scale"),
    ({"guidance_scale": "3"}, "guidance_scale"),
    ({"seed": -1}, "seed"),
    ({"seed": 2**63}, "seed"),
    ({"seed": 1.5}, "seed"),
    ({"policy": "no-such-policy"}, "policy"),
    ({"response_format": "url"}, "response_format"),
    ({"output_format": "gif"}, "output_format"),
    ({"no_such_field": 1}, "no_such_field"),
]


@pytest.mark.parametrize(("fields", "param"), BAD)
def test_bad_fields_are_400_and_named(
    shared: Replica, fields: dict[str, Any], param: str | None
) -> None:
    answer = images(shared, **fields)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"type", "message", "param"}
    assert error["param"] == param
    assert error["message"]


def test_an_over_long_prompt_is_answered_with_count_and_limit(shared: Replica) -> None:
    message = images(shared, prompt="cat " * 30).json()["error"]["message"]
    assert "30 tokens" in message
    assert "at most 22" in message


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"{nope", "application/json"),
        (b"", "application/json"),
        (b"[1]", "application/json"),
        (b'"text"', "application/json"),
        (b'{"prompt": "a cat", "guidance_scale": NaN}', "application/json"),
        (b'{"prompt": "\xff"}', "application/json"),
        (b'{"prompt": "a cat"}', "text/plain"),
        (b"prompt=a+cat", "application/x-www-form-urlencoded"),
    ],
)
@pytest.mark.parametrize("path", [IMAGES, "/generate"])
def test_a_body_that_is_not_a_json_object_is_400(
    shared: Replica, path: str, content: bytes, content_type: str
) -> None:
    answer = shared.client.post(path, content=content, headers={"Content-Type": content_type})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request"


def test_a_body_over_the_limit_is_413_announced_or_not(shared: Replica) -> None:
    body = b"x" * (MAX_BODY_BYTES + 1)
    headers = {"Content-Type": "application/json"}
    announced = shared.client.post("/generate", content=body, headers=headers)
    chunks = (body[at : at + 65536] for at in range(0, len(body), 65536))
    streamed = shared.client.post("/generate", content=chunks, headers=headers)
    for answer in (announced, streamed):
        assert answer.status_code == 413
        assert answer.json()["error"]["type"] == "body_too_large"


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/generate", 405, "method_not_allowed"),
        ("DELETE", IMAGES, 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_has_the_same_error_shape(
    shared: Replica, method: str, path: str, status: int, kind: str
) -> None:
    answer = shared.client.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == kind
    assert answer.headers["X-Request-Id"]


def test_a_bug_is_500_without_a_word_about_itself(
    shared: Replica, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def bug(*_args: object, **_fields: object) -> None:
        raise ValueError("secret prompt in /srv/models")

    monkeypatch.setattr(type(shared.runtime.prompts), "encode", bug)
    answer = shared.draw()
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "internal_error"
    assert "secret" not in answer.text + caplog.text
    assert answer.headers["X-Request-Id"] in caplog.text
    assert "ValueError" in caplog.text


def test_models_shows_the_card(shared: Replica) -> None:
    body = shared.client.get("/v1/models").json()
    assert body["object"] == "list"
    (card,) = body["data"]
    assert (card["id"], card["object"]) == ("tiny-sd1", "model")
    assert (card["layout"], card["size"]) == ("sd-1.x", "32x32")
    assert card["fingerprint"].startswith("sha256:")
    assert card["safety_checker"] is False
    assert card["backend"] == "torch"
    assert card["provider"].partition(":")[0] == DEVICE
    assert (card["max_prompt_tokens"], card["steps"]) == (22, 4)


def test_the_sd2_layout_is_served_and_edited(
    settings: Any, sd2_folder: Any, start_replica: Any
) -> None:
    replica = start_replica(settings.model_copy(update={"model": str(sd2_folder)}))
    assert replica.client.get("/v1/models").json()["data"][0]["layout"] == "sd-2.x"
    before = pixels(replica.draw())
    assert replica.publish(manifest()).status_code == 201
    edited = pixels(replica.draw())
    assert not np.array_equal(before, edited)
    replica.remove("remove-pistol")
    assert np.array_equal(before, pixels(replica.draw()))


def test_every_outcome_is_counted(shared: Replica) -> None:
    def count(outcome: str) -> float:
        return REGISTRY.get_sample_value("quickfix_requests_total", {"outcome": outcome}) or 0.0

    ok, invalid = count("ok"), count("invalid")
    images(shared)
    images(shared, n=0)
    images(shared, prompt="cat " * 30)
    assert (count("ok"), count("invalid")) == (ok + 1, invalid + 2)


def test_a_webp_is_lossless(shared: Replica) -> None:
    (webp,) = pictures(images(shared, seed=3, output_format="webp"))
    (png,) = pictures(images(shared, seed=3))
    assert np.array_equal(np.asarray(webp), np.asarray(png))


@pytest.mark.parametrize(
    "fields", [{}, {"n": 2}, {"stream": True, "partial_images": 1, "steps": 3}, {"n": 99}]
)
def test_what_was_sent_is_let_go_at_once_not_when_python_looks_for_cycles(
    shared: Replica, fields: dict[str, Any]
) -> None:
    """Among the objects of a loaded model that is after thousands of requests and their images."""

    def held() -> Counter[str]:
        return Counter(type(o).__name__ for o in gc.get_objects() if type(o) in (Generated, Job))

    images(shared, **fields)
    gc.collect()
    gc.disable()
    try:
        before = held()
        for seed in range(3):
            images(shared, seed=seed, **fields)
        for _ in range(50):  # the engine's threads let go a moment after the answer has left
            if held() <= before:
                break
            time.sleep(0.1)
        assert held() <= before
    finally:
        gc.enable()
