"""One CLIP text encoder as an attack uses it: texts, token ids or input vectors to hidden states.

Positions, padding and end-of-text come from the tokenizer. Hidden states are those behind the last
layer norm, at every position: what a Stable Diffusion UNet reads. Of an edit of cross-attention
they say nothing, since it begins behind them: there the view reads on through the edited layers.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edits.method.text import normalise

_BATCH = 128
_WORD_END = "</w>"
PLACEHOLDER = "*"  # one token of its own in every CLIP vocabulary; stands for a learned vector
GRADIENT_PASSES = 2  # a backward pass costs about two forward ones


@dataclass(frozen=True)
class Answer:
    """Hidden `states` (prompts, positions, width); `ends` (prompts,), the places of end-of-text."""

    states: Tensor
    ends: Tensor

    @property
    def pooled(self) -> Tensor:
        """The states at end-of-text (prompts, width), which CLIP compares with pictures."""
        return self.states[torch.arange(len(self.states), device=self.ends.device), self.ends]

    @property
    def mean(self) -> Tensor:
        """The mean state (prompts, width) over all positions but start-of-text."""
        return self.states[:, 1:].mean(1)


class EncoderView:
    """A text encoder with its tokenizer; the module is read only, and shared with its pipeline.

    With `readers`, linear layers that read the prompt's embeddings in the denoiser, an answer's
    states are theirs, side by side. `passes` counts forward passes of one prompt; a gradient counts
    as two more. Not thread-safe.
    """

    def __init__(
        self, module: nn.Module, tokenizer: Any, *, readers: Sequence[nn.Linear] = ()
    ) -> None:
        self.module = module
        self.readers = tuple(readers)
        self.passes = 0
        self._tokenizer = copy.deepcopy(tokenizer)  # fast tokenizers are not shared by threads
        self._embedding = token_embedding(module)

    @property
    def table(self) -> Tensor:
        """The token embeddings (vocabulary, width)."""
        return self._embedding.weight.detach()

    @property
    def positions(self) -> int:
        """How many tokens a prompt has with start, end and padding."""
        return int(self._tokenizer.model_max_length)

    @property
    def word_limit(self) -> int:
        """How many tokens a prompt may have between start and end."""
        return self.positions - 2

    @property
    def vocabulary(self) -> dict[str, int]:
        """The id of every token."""
        vocabulary: dict[str, int] = self._tokenizer.get_vocab()
        return vocabulary

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of start, end, padding and whatever else no text should spell."""
        return frozenset(self._tokenizer.all_special_ids)

    def words(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text alone, without start, end and padding."""
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(
            [normalise(text) for text in texts], add_special_tokens=False, verbose=False
        ).input_ids
        return ids

    def tokenise(self, texts: Sequence[str]) -> Tensor:
        """Padded ids (texts, positions). Raises ValueError for a text that is too long."""
        return self.framed(self.words(texts))

    def framed(self, words: Sequence[Sequence[int]]) -> Tensor:
        """Ids (prompts, positions) of prompts given by their words: start, words, end, padding.

        Raises ValueError for one that is too long.
        """
        start, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        rows = []
        for ids in words:
            row = [start, *ids, end]
            if len(row) > self.positions:
                raise ValueError(
                    f"a prompt has {len(ids)} tokens and the encoder reads {self.word_limit}; "
                    "shorten it"
                )
            row += [self._tokenizer.pad_token_id] * (self.positions - len(row))
            rows.append(row)
        return torch.tensor(rows, device=self.table.device).reshape(-1, self.positions)

    def spell(self, words: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence of ids, with the spaces that the tokenizer puts in."""
        if not words:
            return []
        texts: list[str] = self._tokenizer.batch_decode(
            [list(ids) for ids in words],
            skip_special_tokens=False,
            clean_up_tokenization_spaces=False,
        )
        # CLIPTokenizer turns word ends into spaces by a patch of its backend that no copy has.
        return [text.replace(_WORD_END, " ").strip() for text in texts]

    @torch.no_grad()
    def from_texts(self, texts: Sequence[str]) -> Answer:
        """What the encoder answers to `texts`, without gradients."""
        return self.from_ids(self.tokenise(texts))

    @torch.no_grad()
    def from_ids(self, ids: Tensor) -> Answer:
        """What the encoder answers to `ids` (prompts, positions), without gradients."""
        parts = [self._run(part) for part in torch.split(ids, _BATCH)]
        return Answer(torch.cat([p.states for p in parts]), torch.cat([p.ends for p in parts]))

    def from_embeddings(self, ids: Tensor, embeddings: Tensor) -> Answer:
        """What it answers when `ids` have the token embeddings (prompts, positions, width).

        Gradients flow to `embeddings`; the ids still say where the text ends.
        """

        def replace(_module: nn.Module, _arguments: Any, _output: Tensor) -> Tensor:
            return embeddings.to(_output.dtype)

        handle = self._embedding.register_forward_hook(replace)
        try:
            answer = self._run(ids)
        finally:
            handle.remove()
        if torch.is_grad_enabled() and embeddings.requires_grad:
            self.passes += GRADIENT_PASSES * len(ids)
        return answer

    def from_vectors(self, ids: Tensor, vectors: Tensor) -> Answer:
        """What it answers when the placeholders of each prompt are `vectors` (k, width), in turn.

        Gradients flow to `vectors`. Raises ValueError unless every prompt has k placeholders.
        """
        places = ids == self.placeholder_id
        if not (places.sum(1) == len(vectors)).all():
            raise ValueError(f"not every prompt has {len(vectors)} placeholders {PLACEHOLDER!r}")
        return self.from_embeddings(ids, _placed(self.table[ids].float(), places, vectors))

    @property
    def placeholder_id(self) -> int:
        """The id of the token that stands for a learned vector."""
        (ids,) = self.words([PLACEHOLDER])
        if len(ids) != 1:
            raise ValueError(f"the tokenizer has no token of its own for {PLACEHOLDER!r}")
        return ids[0]

    def _run(self, ids: Tensor) -> Answer:
        ends = (ids == self._tokenizer.eos_token_id).int().argmax(1)
        mask = None
        if getattr(self.module.config, "use_attention_mask", False):
            mask = (torch.arange(ids.shape[1], device=ids.device) <= ends[:, None]).long()
        self.passes += len(ids)
        states = self.module(ids, attention_mask=mask).last_hidden_state
        if self.readers:
            states = torch.cat([layer(states) for layer in self.readers], dim=-1)
        return Answer(states.float(), ends)


def token_embedding(module: nn.Module) -> nn.Embedding:
    """The token embeddings of a CLIP text encoder, whichever transformers release built it.

    Raises ValueError if there is not exactly one module of that name.
    """
    found = [
        m
        for name, m in module.named_modules()
        if name.rpartition(".")[2] == "token_embedding" and isinstance(m, nn.Embedding)
    ]
    if len(found) != 1:
        raise ValueError(
            f"{type(module).__name__} has {len(found)} token embeddings; "
            "attacks know CLIP text encoders only"
        )
    return found[0]


@contextmanager
def speaking(module: nn.Module, placeholder_id: int, vectors: Tensor) -> Iterator[None]:
    """Meanwhile `module` reads `vectors` (k, width) where a prompt holds k placeholders.

    Prompts without a placeholder, such as the empty one of guidance, are read as ever.
    """

    def replace(_module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        places = arguments[0] == placeholder_id
        full = places.sum(1) == len(vectors)
        return _placed(output, places & full[:, None], vectors.to(output.device))

    handle = token_embedding(module).register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def _placed(embeddings: Tensor, places: Tensor, vectors: Tensor) -> Tensor:
    """`embeddings` with the j-th marked place of every row replaced by vector j."""
    turn = (places.cumsum(1) - 1).clamp(min=0, max=len(vectors) - 1)
    return torch.where(places[..., None], vectors.to(embeddings.dtype)[turn], embeddings)
