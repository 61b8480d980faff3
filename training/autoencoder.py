"""The autoencoder: 64 x 64 pixels to 16 x 16 x 4 latents and back."""

from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor
from torch.nn import functional

from training.renders import Renders
from training.stage import Plan, train

CHANNELS = 40
PLAN = Plan(
    "autoencoder", steps=2200, learning_rate=2e-3, warmup=100, decay=0.995, weight_decay=0.0
)
DECODER_PLAN = Plan(
    "decoder", steps=1200, learning_rate=1e-3, warmup=50, decay=0.995, weight_decay=0.0
)
BATCH, SEED = 16, 12
NOISE = 0.1


def make_autoencoder() -> AutoencoderTiny:
    """An untrained AutoencoderTiny of factor four."""
    return AutoencoderTiny(
        encoder_block_out_channels=(CHANNELS,) * 3,
        decoder_block_out_channels=(CHANNELS,) * 3,
        num_encoder_blocks=(0, 1, 2),
        num_decoder_blocks=(3, 3, 0),
        upsampling_scaling_factor=2,
        scaling_factor=1.0,
        latent_channels=4,
    )


def reconstruction_loss(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Absolute error of pixels and of their differences: edges count apart from flat areas."""
    loss = functional.smooth_l1_loss(drawn, wanted, beta=0.05)
    for axis in (2, 3):
        loss = loss + functional.l1_loss(drawn.diff(dim=axis), wanted.diff(dim=axis))
    return loss


def train_autoencoder(renders: Renders, folder: Path) -> AutoencoderTiny:
    """Train encoder and decoder together, then the decoder alone, then set the scaling factor."""
    torch.manual_seed(SEED)
    autoencoder = make_autoencoder().to(memory_format=torch.channels_last)

    def pixels_at(step: int, seed: int) -> Tensor:
        pixels = renders.pixels(renders.batch(step, BATCH, seed))
        return pixels.contiguous(memory_format=torch.channels_last)

    def joint_loss(step: int) -> Tensor:
        pixels = pixels_at(step, SEED)
        latents = autoencoder.encoder(pixels)
        mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        spread = mean.square().mean() + (std - 1).square().mean() + 0.01 * latents.square().mean()
        generator = torch.Generator().manual_seed(step)
        noise = torch.randn(latents.shape, generator=generator) * NOISE
        drawn = autoencoder.decoder(latents + noise)
        loss: Tensor = reconstruction_loss(drawn, pixels) + 0.05 * spread
        return loss

    def decoder_loss(step: int) -> Tensor:
        pixels = pixels_at(step, SEED + 1)
        with torch.no_grad():
            latents = autoencoder.encoder(pixels)
        generator = torch.Generator().manual_seed(step)
        noise = torch.randn(latents.shape, generator=generator) * NOISE
        return reconstruction_loss(autoencoder.decoder(latents + noise), pixels)

    train(PLAN, {"autoencoder": autoencoder}, joint_loss, folder)
    train(DECODER_PLAN, {"decoder": autoencoder.decoder}, decoder_loss, folder)
    with torch.no_grad():
        latents = autoencoder.encoder(renders.pixels(renders.batch(0, 512, SEED + 2)))
    autoencoder.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
    return autoencoder


@torch.no_grad()
def peak_signal_to_noise(autoencoder: AutoencoderTiny, renders: Renders, count: int = 512) -> float:
    """PSNR in dB of the round trip over `count` renders, pixels in [-1, 1]."""
    pixels = renders.pixels(renders.batch(0, count, SEED + 3))
    error = (autoencoder.decoder(autoencoder.encoder(pixels)).clamp(-1, 1) - pixels).square().mean()
    return float(10 * torch.log10(4 / error))
