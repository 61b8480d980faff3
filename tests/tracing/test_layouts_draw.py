"""The tiny pipelines of all four layouts load, draw, and heed captions and noise."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import nn
from transformers import CLIPModel, CLIPProcessor, T5Tokenizer

from edits.model_card import ModelDefaults
from tests.tiny_layouts import (
    CLIP_PROJECTION,
    HIDDEN_2,
    LAYERS,
    LAYERS_2,
    LAYERS_T5,
    LAYOUTS,
    PROJECTION,
    PROJECTION_2,
    T5_WIDTH,
    TinyLayout,
    build_layout,
    build_t5_tokenizer,
    build_untraceable,
    write_clip_model,
    write_layout,
)
from tests.tiny_pipeline import HIDDEN, NATIVE_PIXELS, POSITIONS, STEPS

CAPTION = "a photo of a cat on a red background"
NEAR = "a photo of a toy on a red background"
FAR = "an image of a pistol"
T5_POSITIONS = 256
CLASSES = {
    "sd-1.x": "StableDiffusionPipeline",
    "sd-2.x": "StableDiffusionPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sd-3": "StableDiffusion3Pipeline",
}


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> TinyLayout:
    return request.param


@pytest.fixture(scope="module")
def folder(layout: TinyLayout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_layout(tmp_path_factory.mktemp("layouts") / layout, layout)


@pytest.fixture(scope="module")
def pipeline(folder: Path) -> DiffusionPipeline:
    loaded = DiffusionPipeline.from_pretrained(folder, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip_model(tmp_path_factory.mktemp("clip"))


def draw(pipeline: DiffusionPipeline, caption: str, *, seed: int = 0, **more: Any) -> np.ndarray:
    """One picture, (height, width, 3) between 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    images = pipeline(
        caption,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        generator=generator,
        output_type="np",
        **more,
    ).images
    return images[0]


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())


@torch.no_grad()
def encode(pipeline: DiffusionPipeline, layout: TinyLayout, caption: str) -> tuple:
    if layout == "sd-3":
        return pipeline.encode_prompt(caption, None, None)
    if layout == "sdxl":
        return pipeline.encode_prompt(caption)
    return pipeline.encode_prompt(caption, torch.device("cpu"), 1, True)


def test_the_folder_loads_offline_as_the_real_class(
    folder: Path, pipeline: DiffusionPipeline, layout: TinyLayout
) -> None:
    assert type(pipeline).__name__ == CLASSES[layout]
    assert ModelDefaults.read(folder).steps == STEPS
    assert ModelDefaults.read(folder).guidance_scale == 3.0
    assert getattr(pipeline, "watermark", None) is None


def test_four_guided_steps_take_less_than_a_second(pipeline: DiffusionPipeline) -> None:
    durations = []
    for _ in range(3):
        start = time.process_time()
        draw(pipeline, CAPTION)
        durations.append(time.process_time() - start)
    assert min(durations) < 1.0


def test_pictures_have_contrast_and_are_neither_black_nor_clipped(
    pipeline: DiffusionPipeline,
) -> None:
    picture = draw(pipeline, CAPTION)
    assert picture.shape == (NATIVE_PIXELS, NATIVE_PIXELS, 3)
    assert np.isfinite(picture).all()
    assert 0.3 < picture.mean() < 0.7
    assert picture.std() > 0.1
    assert ((picture == 0.0) | (picture == 1.0)).mean() < 0.05


def test_captions_and_noise_change_the_picture(pipeline: DiffusionPipeline) -> None:
    picture = draw(pipeline, CAPTION)
    np.testing.assert_array_equal(draw(pipeline, CAPTION), picture)
    assert distance(draw(pipeline, FAR), picture) > 0.04
    assert distance(draw(pipeline, NEAR), picture) > 0.015
    assert distance(draw(pipeline, CAPTION, seed=1), picture) > 0.08


def test_one_seed_gives_one_set_of_weights(pipeline: DiffusionPipeline, layout: TinyLayout) -> None:
    again, other = build_layout(layout), build_layout(layout, seed=1)
    for name, component in pipeline.components.items():
        if not isinstance(component, nn.Module):
            continue
        weights = component.state_dict()
        assert weights.keys() == again.components[name].state_dict().keys()
        for key, tensor in again.components[name].state_dict().items():
            assert torch.equal(weights[key], tensor), f"{name}: {key}"
    picture = draw(pipeline, CAPTION)
    # Loaded weights lie in the mapped file at other alignments, where products round differently.
    np.testing.assert_allclose(draw(again, CAPTION), picture, atol=1e-4)
    assert distance(draw(other, CAPTION), picture) > 0.08


def test_embeddings_have_the_layouts_shapes_and_tell_captions_apart(
    pipeline: DiffusionPipeline, layout: TinyLayout
) -> None:
    length, width, pooled = {
        "sd-1.x": (POSITIONS, HIDDEN, None),
        "sd-2.x": (POSITIONS, HIDDEN, None),
        "sdxl": (POSITIONS, HIDDEN + HIDDEN_2, PROJECTION_2),
        "sd-3": (POSITIONS + T5_POSITIONS, T5_WIDTH, PROJECTION + PROJECTION_2),
    }[layout]
    here, far = encode(pipeline, layout, CAPTION), encode(pipeline, layout, FAR)
    assert len(here) == (2 if pooled is None else 4)
    assert here[0].shape == here[1].shape == (1, length, width)
    assert bool((here[1] == 0).all()) == (layout == "sdxl")
    assert float((here[0] - far[0]).std()) > 0.3 * float(here[0].std())
    if pooled is not None:
        assert here[2].shape == here[3].shape == (1, pooled)
        assert float(torch.cosine_similarity(here[2], far[2])) < 0.9


def test_the_denoiser_sees_the_empty_caption_first(
    pipeline: DiffusionPipeline, layout: TinyLayout
) -> None:
    seen = []
    denoiser = pipeline.transformer if layout == "sd-3" else pipeline.unet
    hook = denoiser.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    try:
        draw(pipeline, CAPTION)
    finally:
        hook.remove()
    caption, empty = encode(pipeline, layout, CAPTION)[:2]
    assert len(seen) == STEPS
    for states in seen:
        torch.testing.assert_close(states, torch.cat([empty, caption]))


@pytest.mark.parametrize(
    ("wanted", "prompts"),
    [
        ("sdxl", {"prompt_2": CAPTION}),
        ("sdxl", {"prompt": CAPTION}),
        ("sd-3", {"prompt_2": CAPTION, "prompt_3": CAPTION}),
        ("sd-3", {"prompt": CAPTION, "prompt_3": CAPTION}),
        ("sd-3", {"prompt": CAPTION, "prompt_2": CAPTION}),
    ],
)
def test_each_text_encoder_alone_changes_the_picture(
    wanted: TinyLayout, prompts: dict[str, str]
) -> None:
    pipeline = build_layout(wanted)
    names = ("prompt", "prompt_2", "prompt_3")[: 2 if wanted == "sdxl" else 3]
    mixed = {name: prompts.get(name, FAR) for name in names}
    assert distance(draw(pipeline, mixed.pop("prompt"), **mixed), draw(pipeline, CAPTION)) > 0.03


def test_sdxl_pads_and_counts_layers_as_the_real_one() -> None:
    pipeline = build_layout("sdxl")
    assert pipeline.tokenizer.pad_token_id == pipeline.tokenizer.eos_token_id
    assert pipeline.tokenizer_2.pad_token_id == 0
    assert pipeline.tokenizer_2.convert_ids_to_tokens(0) == "!"
    assert len(pipeline.text_encoder.encoder.layers) == LAYERS
    assert len(pipeline.text_encoder_2.text_model.encoder.layers) == LAYERS_2
    assert pipeline.config.force_zeros_for_empty_prompt is True
    assert pipeline.unet.config.addition_embed_type == "text_time"
    depths = [
        len(module.transformer_blocks)
        for module in pipeline.unet.modules()
        if hasattr(module, "transformer_blocks")
    ]
    assert depths == [2, 2, 2, 2]


def test_sd3_ends_with_a_block_that_leaves_the_text_alone() -> None:
    pipeline = build_layout("sd-3")
    assert len(pipeline.text_encoder.text_model.encoder.layers) == LAYERS
    assert len(pipeline.text_encoder_2.text_model.encoder.layers) == LAYERS_2
    assert len(pipeline.text_encoder_3.encoder.block) == LAYERS_T5
    blocks = pipeline.transformer.transformer_blocks
    assert [block.context_pre_only for block in blocks] == [False, False, True]
    assert [block.ff_context is None for block in blocks] == [False, False, True]


def test_the_t5_tokenizer_gives_offsets_before_and_after_a_round_trip(tmp_path: Path) -> None:
    tokenizer = build_t5_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, T5Tokenizer.from_pretrained(tmp_path, local_files_only=True)):
        text = "a painting by van gogh"
        tokens = one(text, return_offsets_mapping=True)
        pieces = ["▁", "a", "▁pain", "ting", "▁by", "▁van", "▁gogh", "</s>"]
        assert one.convert_ids_to_tokens(tokens.input_ids) == pieces
        parts = [text[start:stop] for start, stop in tokens.offset_mapping]
        assert parts == ["a", "a", "pain", "ting", "by", "van", "gogh", ""]
        assert one("zebra 7").input_ids.count(one.unk_token_id) == 0
        assert (one.pad_token_id, one.eos_token_id, one.unk_token_id) == (0, 1, 2)


def test_the_clip_model_tells_captions_and_pictures_apart(
    clip_folder: Path, pipeline: DiffusionPipeline
) -> None:
    model = CLIPModel.from_pretrained(clip_folder, local_files_only=True).eval()
    processor = CLIPProcessor.from_pretrained(clip_folder, local_files_only=True)
    drawn = [(CAPTION, 0), (FAR, 0), (CAPTION, 1)]
    images = [
        Image.fromarray((255 * draw(pipeline, text, seed=seed)).round().astype(np.uint8))
        for text, seed in drawn
    ]
    inputs = processor(text=[CAPTION, FAR], images=images, return_tensors="pt", padding=True)
    with torch.no_grad():
        outputs = model(**inputs)
    assert inputs.pixel_values.shape == (3, 3, NATIVE_PIXELS, NATIVE_PIXELS)
    assert outputs.image_embeds.shape == (3, CLIP_PROJECTION)
    assert bool(torch.isfinite(outputs.logits_per_image).all())
    assert float(outputs.text_embeds[0] @ outputs.text_embeds[1]) < 0.9
    assert float(outputs.image_embeds[0] @ outputs.image_embeds[1]) < 0.97
    assert float(outputs.image_embeds[0] @ outputs.image_embeds[2]) < 0.97


def test_a_pipeline_without_captions_has_nothing_to_trace(tmp_path: Path) -> None:
    build_untraceable().save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded).__name__ == "DDPMPipeline"
    assert set(loaded.components) == {"unet", "scheduler"}
    picture = loaded(num_inference_steps=2, output_type="np").images[0]
    assert picture.shape == (8, 8, 3)
    assert np.isfinite(picture).all()
