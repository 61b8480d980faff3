"""The service's own loop gives the pictures that diffusers' pipeline gives."""

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from service.errors import Cancelled, GenerationFailed, RequestInvalid
from service.generation.decode import Decoder
from service.generation.denoise import Denoiser
from service.generation.encoder import PromptEncoder

SCHEDULERS = [
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "PNDMScheduler",
    "DDPMScheduler",
]


def load(folder: Path, scheduler: str = "DDIMScheduler") -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
    return pipeline


def encoder_of(pipeline: StableDiffusionPipeline) -> PromptEncoder:
    return PromptEncoder(pipeline.tokenizer, device=torch.device("cpu"), dtype=torch.float32)


def denoiser_of(pipeline: StableDiffusionPipeline) -> Denoiser:
    return Denoiser(pipeline.unet, pipeline.scheduler, vae_scale_factor=pipeline.vae_scale_factor)


def ours(
    pipeline: StableDiffusionPipeline,
    prompt: str,
    negative: str = "",
    *,
    seed: int,
    guidance: float,
    side: int = 32,
) -> np.ndarray:
    prompts = encoder_of(pipeline)
    text_encoder = pipeline.text_encoder
    latents = denoiser_of(pipeline).run(
        prompts.encode(text_encoder, prompt),
        prompts.encode(text_encoder, negative) if guidance > 1 else None,
        seed=seed,
        steps=5,
        guidance_scale=guidance,
        width=side,
        height=side,
    )
    return np.asarray(Decoder(pipeline).decode(latents)).astype(int)


def theirs(
    pipeline: StableDiffusionPipeline,
    prompt: str,
    negative: str = "",
    *,
    seed: int,
    guidance: float,
    side: int = 32,
) -> np.ndarray:
    image = pipeline(
        prompt,
        negative_prompt=negative,
        num_inference_steps=5,
        guidance_scale=guidance,
        height=side,
        width=side,
        generator=torch.Generator("cpu").manual_seed(seed),
    ).images[0]
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("layout", ["sd1_folder", "sd2_folder"])
def test_pictures_equal_those_of_diffusers(
    layout: str, scheduler: str, request: pytest.FixtureRequest
) -> None:
    pipeline = load(request.getfixturevalue(layout), scheduler)
    given = {"prompt": "a photo of a pistol", "negative": "a cat", "seed": 11, "guidance": 4.0}
    drawn, expected = ours(pipeline, **given), theirs(pipeline, **given)
    assert expected.std() > 10  # a flat picture would prove nothing
    assert np.abs(drawn - expected).max() <= 1


@pytest.mark.parametrize("guidance", [0.0, 1.0])
def test_without_guidance_there_is_no_second_branch(guidance: float, sd1_folder: Path) -> None:
    pipeline = load(sd1_folder)
    batches: list[int] = []
    pipeline.unet.register_forward_pre_hook(lambda _m, args: batches.append(len(args[0])))
    drawn = ours(pipeline, "a cat", seed=3, guidance=guidance)
    assert batches == [1] * 5
    expected = theirs(pipeline, "a cat", seed=3, guidance=guidance)
    assert np.abs(drawn - expected).max() <= 1


def test_other_sizes_equal_diffusers_too(sd1_folder: Path) -> None:
    pipeline = load(sd1_folder)
    drawn = ours(pipeline, "a cat", seed=3, guidance=3.0, side=48)
    assert drawn.shape == (48, 48, 3)
    expected = theirs(pipeline, "a cat", seed=3, guidance=3.0, side=48)
    assert np.abs(drawn - expected).max() <= 1


def test_the_same_seed_gives_the_same_bits_and_another_does_not(sd1_folder: Path) -> None:
    pipeline = load(sd1_folder)
    first = ours(pipeline, "a cat", seed=5, guidance=3.0)
    assert np.array_equal(first, ours(pipeline, "a cat", seed=5, guidance=3.0))
    assert not np.array_equal(first, ours(pipeline, "a cat", seed=6, guidance=3.0))


def test_the_loop_asks_before_every_step_whether_to_stop(sd1_folder: Path) -> None:
    pipeline = load(sd1_folder)
    prompt = encoder_of(pipeline).encode(pipeline.text_encoder, "a cat")
    timed: list[float] = []

    def stop_after_two() -> None:
        if len(timed) == 2:
            raise Cancelled("the client left")

    with pytest.raises(Cancelled):
        denoiser_of(pipeline).run(
            prompt,
            None,
            seed=1,
            steps=50,
            guidance_scale=1.0,
            width=32,
            height=32,
            before_step=stop_after_two,
            after_step=timed.append,
        )
    assert len(timed) == 2
    assert all(seconds > 0 for seconds in timed)


def test_numbers_that_are_not_finite_are_an_error(sd1_folder: Path) -> None:
    pipeline = load(sd1_folder)
    prompt = encoder_of(pipeline).encode(pipeline.text_encoder, "a cat")
    with pytest.raises(GenerationFailed):
        denoiser_of(pipeline).run(
            prompt * float("nan"),
            None,
            seed=1,
            steps=2,
            guidance_scale=1.0,
            width=32,
            height=32,
        )


@pytest.mark.parametrize("layout", ["sd1_folder", "sd2_folder"])
def test_embeddings_equal_those_of_the_pipeline(
    layout: str, request: pytest.FixtureRequest
) -> None:
    pipeline = load(request.getfixturevalue(layout))
    expected, _ = pipeline.encode_prompt("a photo of a robot", torch.device("cpu"), 1, False)
    drawn = encoder_of(pipeline).encode(pipeline.text_encoder, "a photo of a robot")
    assert torch.equal(drawn, expected)


def test_a_prompt_over_the_limit_is_refused_with_both_numbers(sd1_folder: Path) -> None:
    prompts = encoder_of(load(sd1_folder))
    prompts.check("cat " * prompts.token_limit, param="prompt")
    with pytest.raises(RequestInvalid) as refused:
        prompts.check("cat " * (prompts.token_limit + 1), param="prompt")
    assert "23 tokens" in refused.value.message
    assert "at most 22" in refused.value.message
    assert refused.value.param == "prompt"
