"""Models of the size of Stable Diffusion 1.x with random weights: what they draw is noise.

    python -m benchmarks.sd1_size FOLDER --dtype float16    # on disk, 2 GB

Their tokenizer is the demo model's. Sizes are those of the published configuration files.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, CLIPTokenizer

__all__ = ["pipeline", "text_encoder", "tokenizer"]

HALVINGS = (320, 640, 1280, 1280)


def tokenizer() -> CLIPTokenizer:
    """The demo model's, with 77 positions."""
    found: CLIPTokenizer = AutoTokenizer.from_pretrained(
        "models/demo/tokenizer", model_max_length=77
    )
    return found


def text_encoder(*, seed: int = 0) -> CLIPTextModel:
    """768 wide, 12 layers, 77 positions."""
    torch.manual_seed(seed)
    tokens = tokenizer()
    config = CLIPTextConfig(
        vocab_size=49408,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        hidden_act="quick_gelu",
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    encoder = CLIPTextModel(config).eval().requires_grad_(False)
    for layer in encoder.encoder.layers:  # as HF makes it, the biases are zero: parity needs them
        torch.nn.init.normal_(layer.self_attn.out_proj.bias, std=0.02)
    return encoder


def pipeline(*, seed: int = 0, device: str = "cpu") -> StableDiffusionPipeline:
    """UNet of 860 million parameters, VAE of 84 million, native size 512.

    Its weights are drawn on the device, which draws others than the CPU from the same seed.
    """
    with torch.device(device):
        return _pipeline(seed)


def _pipeline(seed: int) -> StableDiffusionPipeline:
    encoder = text_encoder(seed=seed)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=HALVINGS,
        cross_attention_dim=768,
        attention_head_dim=8,
    )
    blocks = len(HALVINGS)
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=encoder,
        tokenizer=tokenizer(),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def main(
    folder: Path,
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16.")] = "float16",
    device: Annotated[str, typer.Option(help="Where the weights are drawn: cpu or cuda.")] = "cpu",
    seed: int = 0,
) -> None:
    """Write one into a folder."""
    pipeline(seed=seed, device=device).to(dtype=getattr(torch, dtype)).save_pretrained(folder)


if __name__ == "__main__":
    typer.run(main)
