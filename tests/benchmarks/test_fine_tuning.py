"""ESD and Concept Ablation on random models: what they train, and that they reach their targets."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from benchmarks.peers.cells import probes_of
from benchmarks.peers.concept_ablation import AblationSettings, concept_ablation
from benchmarks.peers.esd import EsdSettings, esd
from benchmarks.peers.fine_tuning import (
    Schedule,
    captions,
    denoise,
    embed,
    predict,
    true_prediction,
)
from benchmarks.peers.sets import removed
from edits.loading import load_pipeline
from tests.benchmarks.conftest import MODEL

SCHEDULE = Schedule(updates=48, most=48, batch=4, learning_rate=3e-3)
ESD = EsdSettings(SCHEDULE, steps=4, reuse=4)
ABLATION = AblationSettings(Schedule(16, 16, 4, 1e-3), pictures=6, steps=4)


@pytest.fixture(scope="module")
def demo():
    """The tiny pipelines have no room for the training captions."""
    return load_pipeline(str(MODEL))


@pytest.fixture(scope="module")
def answers():
    """A UNet's predictions at states that were not trained on, for some texts."""

    def ask(pipeline, texts, unet=None):
        generator = torch.Generator().manual_seed(99)
        size = pipeline.unet.config.sample_size
        noisy = torch.randn((16, 4, size, size), generator=generator)
        times = torch.randint(100, 900, (16,), generator=generator)
        hidden = embed(pipeline, texts).repeat(16 // len(texts), 1, 1)
        with torch.no_grad():
            return predict(pipeline.unet if unet is None else unet, noisy, times, hidden)

    return ask


def test_esd_moves_the_concept_to_the_guided_away_prediction(pipeline, specs, answers, changed):
    edited = esd(pipeline, specs[:1], ESD)
    without, within = answers(pipeline, [""]), answers(pipeline, ["pistol"])
    wanted = without - (within - without)
    before = functional.mse_loss(within, wanted)
    after = functional.mse_loss(answers(pipeline, ["pistol"], edited.unet), wanted)
    assert after < 0.3 * before
    names = changed(pipeline, edited)
    assert names
    assert all(".attn2." in name for name in names)


def test_ablation_moves_the_concept_to_the_anchors_prediction(demo, specs, answers, changed):
    edited = concept_ablation(demo, specs[:1], ABLATION)
    texts = captions("object", "pistol", 4), captions("object", "toy", 4)
    old, wanted = answers(demo, texts[0]), answers(demo, texts[1])
    before = functional.mse_loss(old, wanted)
    after = functional.mse_loss(answers(demo, texts[0], edited.unet), wanted)
    assert after < 0.5 * before
    names = changed(demo, edited)
    assert names
    assert all(".attn2.to_k." in name or ".attn2.to_v." in name for name in names)


SHORT = Schedule(updates=3, most=5, batch=2, learning_rate=1e-3)


def test_esd_with_the_same_seed_gives_the_same_bits(pipeline, specs, changed):
    settings = replace(ESD, schedule=SHORT)
    first, second = (esd(pipeline, specs, settings) for _ in range(2))
    assert not changed(first, second)
    assert changed(first, esd(pipeline, specs, replace(settings, seed=1)))
    assert not any(parameter.requires_grad for parameter in first.unet.parameters())


def test_ablation_with_the_same_seed_gives_the_same_bits(demo, specs, changed):
    settings = replace(ABLATION, schedule=SHORT, pictures=2, steps=2)
    first, second = (concept_ablation(demo, specs, settings) for _ in range(2))
    assert not changed(first, second)
    assert changed(first, concept_ablation(demo, specs, replace(settings, seed=1)))


def test_updates_grow_with_the_concepts_up_to_the_most():
    assert [SHORT.updates_for(count) for count in (1, 2, 16)] == [3, 5, 5]


def test_true_prediction_is_what_the_scheduler_inverts(pipeline):
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn((2, 1, 4, 8, 8), generator=generator)
    time = torch.tensor([500])
    noisy = pipeline.scheduler.add_noise(clean, noise, time)
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    scheduler.set_timesteps(10)
    truth = true_prediction(pipeline.scheduler, clean, noise, time)
    found = scheduler.step(truth, 500, noisy).pred_original_sample
    torch.testing.assert_close(found, clean, rtol=1e-3, atol=1e-3)


def test_denoising_ends_where_diffusers_own_loop_ends(pipeline):
    hidden = embed(pipeline, ["a photo of a cat"])
    _, states = denoise(
        pipeline,
        pipeline.unet,
        hidden,
        steps=4,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(7),
    )
    expected = pipeline(
        "a photo of a cat",
        num_inference_steps=4,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(7),
        output_type="latent",
    ).images
    torch.testing.assert_close(states[-1], expected, rtol=1e-3, atol=1e-4)


def test_training_captions_of_concept_and_anchor_are_aligned():
    ours, anchors = captions("object", "pistol"), captions("object", "toy")
    assert len(set(ours)) == 24
    assert [text.replace("pistol", "toy") for text in ours] == anchors


def test_no_training_caption_is_a_prompt_of_the_evaluation(judge):
    asked = {
        probe.prompt
        for probe in probes_of(judge, removed(16), targets=16 * 40, each=40, seed=5).all
    }
    trained = {text for s in removed(16) for text in captions(s.kind, s.concept)}
    assert len(trained) == 16 * 24
    assert not asked & trained
