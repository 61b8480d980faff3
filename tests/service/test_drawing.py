"""Drawings, alone or together, are the pictures that diffusers' pipeline gives."""

import time
from pathlib import Path
from typing import Any, get_args

import diffusers
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor

from edits.loading import load_pipeline
from service.errors import GenerationFailed, RequestInvalid
from service.generation.backends import TorchBackend
from service.generation.batch import Batches
from service.generation.decode import Decoder
from service.generation.drawing import Drawing
from service.generation.encoder import PromptEncoder
from service.generation.schedulers import SCHEDULERS, SchedulerName, Schedulers
from tests.device import DEVICE

DEMO = Path("models/demo")  # predicts v, and its schedule ends without any signal
KINDS = [
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "PNDMScheduler",
    "DDPMScheduler",
]


def load(folder: Path, scheduler: str = "DDIMScheduler") -> StableDiffusionPipeline:
    pipeline = load_pipeline(str(folder), device=DEVICE)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = getattr(diffusers, scheduler).from_config(pipeline.scheduler.config)
    return pipeline


def encoder_of(pipeline: StableDiffusionPipeline) -> PromptEncoder:
    return PromptEncoder(pipeline.tokenizer, device=pipeline.device, dtype=torch.float32)


def drawing_of(
    pipeline: StableDiffusionPipeline,
    prompt: str,
    negative: str = "",
    *,
    seed: int,
    guidance: float,
    side: int = 32,
    steps: int = 5,
    scheduler: SchedulerName | None = None,
) -> Drawing:
    prompts = encoder_of(pipeline)
    texts = [negative, prompt] if guidance > 1 else [prompt]
    scale = pipeline.vae_scale_factor
    return Drawing(
        torch.cat([prompts.encode(pipeline.text_encoder, text) for text in texts]),
        Schedulers(pipeline.scheduler).new(scheduler, steps),
        seed=seed,
        guidance_scale=guidance,
        shape=(4, side // scale, side // scale),
    )


def draw(pipeline: StableDiffusionPipeline, drawings: list[Drawing]) -> list[np.ndarray]:
    """Step all that are not done together, whatever step they are at."""
    batches = Batches(TorchBackend(pipeline))
    while going := [drawing for drawing in drawings if not drawing.done]:
        assert batches.step(going) == {}
    decoder = Decoder(TorchBackend(pipeline), pipeline)
    return [np.asarray(decoder.decode([d.latents])[0]).astype(int) for d in drawings]


def ours(pipeline: StableDiffusionPipeline, *args: str, **options: Any) -> np.ndarray:
    return draw(pipeline, [drawing_of(pipeline, *args, **options)])[0]


def theirs(
    pipeline: StableDiffusionPipeline,
    prompt: str,
    negative: str = "",
    *,
    seed: int,
    guidance: float,
    side: int = 32,
    steps: int = 5,
) -> np.ndarray:
    image = pipeline(
        prompt,
        negative_prompt=negative,
        num_inference_steps=steps,
        guidance_scale=guidance,
        height=side,
        width=side,
        generator=torch.Generator("cpu").manual_seed(seed),
    ).images[0]
    return np.asarray(image).astype(int)


@pytest.mark.parametrize("scheduler", KINDS)
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


MIXED = [
    {"prompt": "a cat", "seed": 1, "guidance": 3.0, "steps": 4, "scheduler": "ddim"},
    {"prompt": "a dog", "seed": 2, "guidance": 1.0, "steps": 9, "scheduler": "dpm++"},
    {"prompt": "a pistol", "seed": 3, "guidance": 7.5, "steps": 6, "scheduler": "euler"},
    {"prompt": "a cup", "seed": 4, "guidance": 2.0, "steps": 5, "scheduler": "euler-ancestral"},
    {"prompt": "a key", "seed": 5, "guidance": 0.0, "steps": 7, "scheduler": "unipc"},
]


@pytest.mark.parametrize("layout", ["sd1_folder", "sd2_folder", "demo"])
def test_a_picture_does_not_depend_on_who_shares_its_batch(
    layout: str, request: pytest.FixtureRequest
) -> None:
    """Other steps, guidance, seeds and schedulers; one joins late; against diffusers alone."""
    folder = DEMO if layout == "demo" else request.getfixturevalue(layout)
    pipeline = load(folder)
    drawings = [drawing_of(pipeline, **given) for given in MIXED]
    batches = Batches(TorchBackend(pipeline))
    batches.step(drawings[:2])  # the others join at the second step
    together = draw(pipeline, drawings)
    for given, picture in zip(MIXED, together, strict=True):
        kind, changes = SCHEDULERS[given["scheduler"]]
        alone = load(folder)
        alone.scheduler = kind.from_config(alone.scheduler.config, **changes)
        options = {name: given[name] for name in ("seed", "guidance", "steps")}
        expected = theirs(alone, given["prompt"], **options)
        assert expected.std() > 10
        assert np.abs(picture - expected).max() <= 1, given["scheduler"]


def test_the_prediction_on_the_way_ends_at_the_picture(sd1_folder: Path) -> None:
    """For every scheduler: the predicted clean latents come closer, and are right in the end."""
    pipeline = load(sd1_folder)
    for name in SCHEDULERS:
        drawing = drawing_of(pipeline, "a cat", seed=3, guidance=3.0, steps=40, scheduler=name)
        drawing.keep_predicted = True
        batches = Batches(TorchBackend(pipeline))
        predicted = []
        while not drawing.done:
            batches.step([drawing])
            predicted.append(drawing.predicted)
        distances = [float((each - drawing.latents).norm()) for each in predicted]
        assert distances[-1] <= 0.02 * float(drawing.latents.norm()), name
        assert distances[-1] < distances[20] < distances[0], name


def test_numbers_that_are_not_finite_are_an_error(sd1_folder: Path) -> None:
    pipeline = load(sd1_folder)
    drawing = drawing_of(pipeline, "a cat", seed=1, guidance=1.0, steps=2)
    drawing.latents *= float("nan")
    with pytest.raises(GenerationFailed):
        draw(pipeline, [drawing])


class Breaks:
    """A backend that refuses batches over a size, and rows with a mark in them."""

    name = provider = "double"

    def __init__(self, backend: TorchBackend, *, largest: int, error: Exception) -> None:
        self._backend = backend
        self._largest = largest
        self._error = error
        self.sizes: list[int] = []

    def predict(self, latents: Tensor, *rest: Tensor, unet: Any = None) -> Tensor:
        self.sizes.append(len(latents))
        if len(latents) > self._largest or (latents == 77.0).any():
            raise self._error
        return self._backend.predict(latents, *rest, unet=unet)


def test_a_drawing_that_fails_fails_alone_and_the_others_go_on_as_if_nothing_was(
    sd1_folder: Path,
) -> None:
    pipeline = load(sd1_folder)
    seeds = (1, 2, 3, 4, 5)
    drawings = [drawing_of(pipeline, "a cat", seed=seed, guidance=1.0) for seed in seeds]
    drawings[3].latents[0, 0, 0, 0] = 77.0
    backend = Breaks(TorchBackend(pipeline), largest=99, error=RuntimeError("a bad row"))
    failed = Batches(backend).step(drawings)
    assert [*failed] == [drawings[3]]
    assert str(failed[drawings[3]]) == "a bad row"
    assert [drawing.taken for drawing in drawings] == [1, 1, 1, 0, 1]
    others = [drawing for drawing in drawings if drawing is not drawings[3]]
    for seed, picture in zip((1, 2, 3, 5), draw(pipeline, others), strict=True):
        assert np.abs(picture - ours(pipeline, "a cat", seed=seed, guidance=1.0)).max() <= 1


def test_a_batch_that_does_not_fit_into_memory_is_halved_and_not_tried_again_for_a_minute(
    sd1_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load(sd1_folder)
    drawings = [drawing_of(pipeline, "a cat", seed=seed, guidance=1.0) for seed in range(8)]
    full = torch.OutOfMemoryError("no memory")
    backend = Breaks(TorchBackend(pipeline), largest=2, error=full)
    batches = Batches(backend)
    assert batches.step(drawings) == {}
    assert backend.sizes == [8, 4, 2, 2, 4, 2, 2]
    backend.sizes.clear()
    assert batches.step(drawings) == {}
    assert backend.sizes == [2, 2, 2, 2]
    later = time.monotonic() + 61
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: later)
        backend.sizes.clear()
        assert batches.step(drawings) == {}
        assert backend.sizes[0] == 8, "another minute, other memory"
        backend.sizes.clear()
        assert batches.step(drawings) == {}
        assert backend.sizes == [2, 2, 2, 2]
    batches.forget(set())
    backend.sizes.clear()
    assert batches.step(drawings) == {}
    assert backend.sizes[0] == 8


@pytest.mark.parametrize(
    ("error", "alive"),
    [(RuntimeError("CUDA error: device-side assert"), False), (torch.OutOfMemoryError(), True)],
)
def test_a_device_that_fails_every_row_eight_times_in_a_row_is_given_up(
    error: RuntimeError, alive: bool, sd1_folder: Path
) -> None:
    pipeline = load(sd1_folder)
    backend = Breaks(TorchBackend(pipeline), largest=99, error=error)
    batches = Batches(backend)

    def step(*broken: bool) -> None:
        drawings = [drawing_of(pipeline, "a cat", seed=1, guidance=1.0) for _ in broken]
        for drawing, breaks in zip(drawings, broken, strict=True):
            if breaks:
                drawing.latents[0, 0, 0, 0] = 77.0
        assert len(batches.step(drawings)) == sum(broken)

    for _ in range(7):
        step(True, True)
    step(True, False)  # one row that works, and the device does
    for _ in range(7):
        step(True)
    assert batches.alive
    step(True)
    assert batches.alive == alive


@pytest.mark.parametrize("layout", ["sd1_folder", "sd2_folder"])
def test_embeddings_equal_those_of_the_pipeline(
    layout: str, request: pytest.FixtureRequest
) -> None:
    pipeline = load(request.getfixturevalue(layout))
    expected, _ = pipeline.encode_prompt("a photo of a robot", pipeline.device, 1, False)
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


def test_requests_may_name_every_scheduler_that_there_is_and_no_other() -> None:
    assert get_args(SchedulerName) == tuple(SCHEDULERS)
