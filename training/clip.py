"""The text encoder and its CLIP scorer, trained together by contrast (Radford et al., 2021)."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from edits.evaluation.scorer import ClipScorer, ImageTower
from training.captions import draw_caption
from training.renders import Renders
from training.stage import Plan, train

WIDTH, PROJECTION = 128, 128
PLAN = Plan("clip", steps=1500, learning_rate=1.5e-3, warmup=150, decay=0.995, weight_decay=0.05)
BATCH, SEED = 192, 11


def text_config(tokenizer: CLIPTokenizer) -> CLIPTextConfig:
    """Four layers of 128 with transformers' default initialisation, as CLIP's text tower."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=PROJECTION,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def contrast(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross entropy over a batch's pairs; both inputs (b, 128), unit length."""
    logits = scale.exp().clamp(max=100) * images @ texts.T
    target = torch.arange(len(logits))
    return (
        functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
    ) / 2


def train_clip(
    renders: Renders, tokenizer: CLIPTokenizer, folder: Path
) -> tuple[CLIPTextModel, ClipScorer]:
    """Train both towers; returns the text encoder and the scorer that compares with it."""
    torch.manual_seed(SEED)
    encoder = CLIPTextModel(text_config(tokenizer))
    scorer = ClipScorer(ImageTower(PROJECTION), nn.Linear(WIDTH, PROJECTION, bias=False))
    scale = nn.ParameterDict({"log": nn.Parameter(torch.tensor(2.65))})

    def loss_at(step: int) -> Tensor:
        indices = renders.batch(step, BATCH, SEED)
        rng = np.random.default_rng((SEED, step, 1))
        captions = [draw_caption(renders.scene(i), rng) for i in indices]
        # What stands behind end-of-text gets no gradient under a causal mask, as in CLIP itself:
        # leaving it away changes nothing and saves half the time.
        tokens = tokenizer(captions, padding="longest", truncation=True, return_tensors="pt")
        hidden = encoder(tokens.input_ids).last_hidden_state
        end = tokens.attention_mask.sum(1) - 1
        texts = scorer.embed_hidden(hidden[torch.arange(len(hidden)), end])
        pixels = renders.pixels(indices)
        return contrast(scorer.embed_pixels(pixels), texts, scale["log"])

    train(PLAN, {"encoder": encoder, "scorer": scorer, "scale": scale}, loss_at, folder)
    return encoder, scorer
