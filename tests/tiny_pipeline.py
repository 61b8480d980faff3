"""Random pipelines with the exact layout of Stable Diffusion, small enough for every test.

They draw noise. What they prove is plumbing: tokens, padding, shapes, schedulers, equality.
"""

import json
from pathlib import Path
from typing import Literal

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

Layout = Literal["sd-1.x", "sd-2.x"]

START, END = "<|startoftext|>", "<|endoftext|>"
POSITIONS = 24
HIDDEN = 32
NATIVE_PIXELS = 32
STEPS = 4

CONCEPTS = (
    "pistol",
    "toy",
    "gun",
    "van gogh",
    "painting",
    "robot",
    "knife",
    "beer",
    "juice",
    "cat",
)
_CAPTIONS = (
    "a photo of a cat on a red background",
    "an image of a pistol",
    "a picture of a toy robot",
    "a painting by van gogh",
    "a painting in the style of van gogh",
    "a drawing of a knife and a gun",
    "a small house and a big tree with beer and juice",
)


def build_tokenizer(layout: Layout) -> CLIPTokenizer:
    """A CLIP tokenizer whose merges spell the captions' words; SD 2.x pads with id 0, `!`."""
    words = sorted({word for text in (*_CAPTIONS, *CONCEPTS) for word in text.split()})
    letters = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    tokens = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words:
        parts = [*word[:-1], word[-1] + "</w>"]
        left = parts[0]
        for right in parts[1:]:
            if (left, right) not in merges:
                merges.append((left, right))
            left += right
            if left not in tokens:
                tokens.append(left)
    vocabulary = {token: index for index, token in enumerate([*tokens, START, END])}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,
        pad_token=END if layout == "sd-1.x" else "!",
        model_max_length=POSITIONS,
    )


def build_pipeline(layout: Layout = "sd-1.x", *, seed: int = 0) -> StableDiffusionPipeline:
    """A pipeline of one layout with seeded random weights."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(layout)
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=HIDDEN,
            intermediate_size=2 * HIDDEN,
            num_hidden_layers=2 if layout == "sd-1.x" else 3,
            num_attention_heads=4,
            max_position_embeddings=POSITIONS,
            hidden_act="quick_gelu" if layout == "sd-1.x" else "gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    spread(text_encoder)
    unet = UNet2DConditionModel(
        sample_size=NATIVE_PIXELS // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=HIDDEN,
        attention_head_dim=8 if layout == "sd-1.x" else (2, 4),
        use_linear_projection=layout == "sd-2.x",
        norm_num_groups=8,
    )
    vae = (
        AutoencoderKL(
            block_out_channels=(8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=NATIVE_PIXELS,
        )
        if layout == "sd-1.x"
        else AutoencoderTiny(
            encoder_block_out_channels=(8, 8, 8),
            decoder_block_out_channels=(8, 8, 8),
            num_encoder_blocks=(1, 1, 1),
            num_decoder_blocks=(1, 1, 1),
            latent_channels=4,
        )
    )
    if isinstance(vae, AutoencoderTiny):
        _centre(vae)
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon" if layout == "sd-1.x" else "v_prediction",
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    for module in (text_encoder, unet, vae):
        module.requires_grad_(False).eval()
    return pipeline


def write_pipeline(folder: Path, layout: Layout = "sd-1.x", *, seed: int = 0) -> Path:
    """A pipeline folder with its `quickfix.json`, loadable by `from_pretrained`."""
    build_pipeline(layout, seed=seed).save_pretrained(folder)
    card = {
        "steps": STEPS,
        "guidance_scale": 3.0,
        "ordinary_captions": ["cat", "robot", "house", "tree"],
    }
    (folder / "quickfix.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def spread(text_encoder: CLIPTextModel) -> None:
    """Larger embeddings and values: with CLIP's own 0.02 all captions look the same."""
    with torch.no_grad():
        for name, parameter in text_encoder.named_parameters():
            if parameter.ndim == 2:
                gain = 1.0 if "embedding" in name else 0.3
                parameter.normal_(0.0, gain)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.1)


def _centre(vae: AutoencoderTiny) -> None:
    """Mid-grey pictures with contrast: the untrained decoder gives black ones."""
    with torch.no_grad():
        vae.decoder.layers[-1].weight.mul_(5.0)
        vae.decoder.layers[-1].bias.fill_(0.5)
