# ruff: noqa: RUF001 - letters that look like other letters are what is tested
"""A prompt is encoded in the spelling of the captions, and otherwise as diffusers encodes it."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline

from service.errors import RequestInvalid
from service.generation.encoder import PromptEncoder

DEMO = Path(__file__).resolve().parents[2] / "models" / "demo"
CPU = torch.device("cpu")

DISGUISES = [
    "рistоl",
    "p\u200bistol",
    "ｐｉｓｔｏｌ",
    "𝓅𝒾𝓈𝓉ℴ𝓁",
    "p̶i̶s̶t̶o̶l̶",
    "ᴘɪꜱᴛᴏʟ",
]


@pytest.fixture(scope="module", params=["sd1", "sd2", "demo"])
def pipeline(
    request: pytest.FixtureRequest, sd1_folder: Path, sd2_folder: Path
) -> StableDiffusionPipeline:
    folder = {"sd1": sd1_folder, "sd2": sd2_folder, "demo": DEMO}[request.param]
    return StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)


@pytest.fixture(scope="module")
def prompts(pipeline: StableDiffusionPipeline) -> PromptEncoder:
    return PromptEncoder(pipeline.tokenizer, device=CPU, dtype=torch.float32)


def theirs(pipeline: StableDiffusionPipeline, prompt: str) -> torch.Tensor:
    embedding, _ = pipeline.encode_prompt(prompt, CPU, 1, False)
    return embedding


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("caption", ["{}", "a photo of a {} on a red background"])
def test_a_disguised_name_has_the_embedding_of_the_name(
    pipeline: StableDiffusionPipeline, prompts: PromptEncoder, caption: str, disguise: str
) -> None:
    plain = theirs(pipeline, caption.format("pistol"))
    hidden = caption.format(disguise)
    assert torch.equal(prompts.encode(pipeline.text_encoder, hidden), plain)
    # Without the spelling it would have another: the comparison can fail.
    assert not torch.equal(theirs(pipeline, hidden), plain)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "a photo of a robot",
        "  A   Photo\nof a  robot, 4k ",
        "p1stol",
        "a cat's café",
        "naïve façade",
        "красный кот",
        "猫と🐱",
    ],
)
def test_an_ordinary_prompt_has_the_embedding_that_diffusers_gives(
    pipeline: StableDiffusionPipeline, prompts: PromptEncoder, prompt: str
) -> None:
    assert torch.equal(prompts.encode(pipeline.text_encoder, prompt), theirs(pipeline, prompt))


def test_the_tokens_counted_are_those_encoded(prompts: PromptEncoder) -> None:
    prompts.check("c\u200b\u0430t " * prompts.token_limit, param="prompt")
    with pytest.raises(RequestInvalid) as refused:
        prompts.check("c\u200b\u0430t " * (prompts.token_limit + 1), param="prompt")
    assert f"{prompts.token_limit + 1} tokens" in refused.value.message


def test_counting_a_long_prompt_does_not_hold_up_encoding(
    pipeline: StableDiffusionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The denoising loop encodes: it must not wait for prompts that may be refused."""
    prompts = PromptEncoder(pipeline.tokenizer, device=CPU, dtype=torch.float32)
    counting, counted = threading.Event(), threading.Event()
    real = prompts._counter

    def slow(*arguments: Any, **options: Any) -> Any:
        counting.set()
        assert counted.wait(60)
        return real(*arguments, **options)

    monkeypatch.setattr(prompts, "_counter", slow)
    checking = threading.Thread(target=prompts.check, args=("a cat",), kwargs={"param": "prompt"})
    checking.start()
    assert counting.wait(60)
    encoding = threading.Thread(target=prompts.encode, args=(pipeline.text_encoder, "a cat"))
    encoding.start()
    encoding.join(60)
    assert not encoding.is_alive()
    assert checking.is_alive()
    counted.set()
    checking.join(60)
