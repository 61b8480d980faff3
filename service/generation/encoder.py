"""Prompt to embeddings: of its normal spelling, those of StableDiffusionPipeline.encode_prompt."""

import copy
import threading
from typing import Any

import torch
from torch import Tensor, nn

from edits.method.text import normalise
from service.errors import RequestInvalid

__all__ = ["PromptEncoder"]


class PromptEncoder:
    """Tokenises with the pipeline's own tokenizer; the text encoder is an argument of each call.

    Prompts are spelt as the captions of edits are (`edits.method.text`), so that no disguise of a
    removed name gets past its edit.

    Thread-safe: fast tokenizers raise "Already borrowed" when two threads use one. `check` has one
    of its own, so that the denoising loop never waits for a long prompt that will be refused.
    """

    def __init__(self, tokenizer: Any, *, device: torch.device, dtype: torch.dtype) -> None:
        self._tokenizer = tokenizer
        self._device = device
        self._dtype = dtype
        self._lock = threading.Lock()
        self._counter = copy.deepcopy(tokenizer)
        self._counter_lock = threading.Lock()

    @property
    def token_limit(self) -> int:
        """Tokens that a prompt may have, start-of-text and end-of-text not counted."""
        return int(self._tokenizer.model_max_length) - 2

    def check(self, prompt: str, *, param: str) -> None:
        """Raise RequestInvalid for a prompt over the token limit: it is never cut silently.

        Counted are the tokens that `encode` reads, those of the normal spelling.
        """
        text = normalise(prompt)
        with self._counter_lock:
            count = len(self._counter(text, add_special_tokens=False).input_ids)
        if count > self.token_limit:
            raise RequestInvalid(
                f"{param} has {count} tokens; this model takes at most {self.token_limit}",
                param=param,
            )

    @torch.inference_mode()
    def encode(self, text_encoder: nn.Module, *prompts: str) -> Tensor:
        """Last hidden states of the prompts, shape (prompts, positions, features)."""
        texts = [normalise(prompt) for prompt in prompts]
        with self._lock:
            inputs = self._tokenizer(
                texts,
                padding="max_length",
                max_length=self._tokenizer.model_max_length,
                truncation=True,  # the self-test's captions; requests have passed `check`
                return_tensors="pt",
            )
        mask = None
        if getattr(text_encoder.config, "use_attention_mask", False):
            mask = inputs.attention_mask.to(self._device)
        hidden: Tensor = text_encoder(inputs.input_ids.to(self._device), attention_mask=mask)[0]
        return hidden.to(self._dtype)
