"""The UNet: v-prediction on the autoencoder's latents, conditioned on the frozen text encoder."""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from training.captions import draw_caption
from training.clip import WIDTH
from training.renders import Renders
from training.stage import Plan, train

PLAN = Plan("unet", steps=6000, learning_rate=1e-3, warmup=200, decay=0.999, weight_decay=0.01)
BATCH, SEED = 32, 14
UNCONDITIONAL_SHARE = 0.1


def make_unet() -> UNet2DConditionModel:
    """An untrained UNet of three levels with cross-attention on the lower two."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def make_scheduler() -> DDIMScheduler:
    """DDIM with zero terminal SNR (Lin et al., 2024), so that plain backgrounds come out right."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
    )


@torch.no_grad()
def encode_renders(autoencoder: AutoencoderTiny, renders: Renders, path: Path) -> Tensor:
    """Scaled latents of all renders (n, 4, 16, 16), half precision, kept in a file."""
    if not path.exists():
        parts = []
        for start in range(0, len(renders), 500):
            indices = np.arange(start, min(start + 500, len(renders)))
            coded = autoencoder.encoder(renders.pixels(indices))
            parts.append((coded * autoencoder.config.scaling_factor).half())
        torch.save(torch.cat(parts), path)
    latents: Tensor = torch.load(path, weights_only=True)
    return latents


def train_unet(
    renders: Renders,
    latents: Tensor,
    tokenizer: CLIPTokenizer,
    encoder: CLIPTextModel,
    folder: Path,
) -> UNet2DConditionModel:
    """Train on fresh captions and noise at every step; returns the UNet with average weights."""
    torch.manual_seed(SEED)
    unet = make_unet().to(memory_format=torch.channels_last)
    signal = make_scheduler().alphas_cumprod

    def loss_at(step: int) -> Tensor:
        indices = renders.batch(step, BATCH, SEED)
        rng = np.random.default_rng((SEED, step, 1))
        captions = [
            "" if rng.random() < UNCONDITIONAL_SHARE else draw_caption(renders.scene(i), rng)
            for i in indices
        ]
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        with torch.no_grad():
            hidden = encoder(tokens.input_ids).last_hidden_state
        clean = latents[torch.from_numpy(indices)].float()
        generator = torch.Generator().manual_seed(SEED * 1_000_003 + step)
        noise = torch.randn(clean.shape, generator=generator)
        # One time in each of BATCH equal strips: the same expectation with less variance.
        strips = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) / BATCH
        times = (strips[torch.randperm(BATCH, generator=generator)] * len(signal)).long()
        a = signal[times].sqrt().view(-1, 1, 1, 1)
        s = (1 - signal[times]).sqrt().view(-1, 1, 1, 1)
        noisy = (a * clean + s * noise).contiguous(memory_format=torch.channels_last)
        velocity = a * noise - s * clean
        drawn = unet(noisy, times, hidden, return_dict=False)[0]
        loss: Tensor = functional.mse_loss(drawn, velocity)
        return loss

    train(PLAN, {"unet": unet}, loss_at, folder)
    return unet
