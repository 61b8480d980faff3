"""What a pipeline's first text encoder makes of whole texts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from edits.method.text import normalise

_BATCH = 64


@torch.inference_mode()
def end_of_text(pipeline: Any, texts: Sequence[str]) -> Tensor:
    """Final hidden states at end-of-text (texts, width), float32 on the CPU.

    Texts are normalised; one that is longer than the encoder reads is cut.
    """
    rows = []
    for start in range(0, len(texts), _BATCH):
        tokens = pipeline.tokenizer(
            [normalise(text) for text in texts[start : start + _BATCH]],
            padding="max_length",
            max_length=pipeline.tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        encoder = pipeline.text_encoder
        hidden = encoder(tokens.input_ids.to(encoder.device)).last_hidden_state
        ends = tokens.attention_mask.sum(1) - 1
        rows.append(hidden[torch.arange(len(ends)), ends].float().cpu())
    return torch.cat(rows)
