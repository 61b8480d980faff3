"""Attention of a UNet as one operation of its graph.

Traced as diffusers runs it, each attention becomes a dozen operations, most of which only turn
tensors around. onnxruntime has one for all of them, on the CPU and on GPUs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from torch import Tensor
from torch.nn import functional

__all__ = ["attention_in_one"]

_USUAL = (AttnProcessor, AttnProcessor2_0)


@contextmanager
def attention_in_one(unet: Any) -> Iterator[None]:
    """While it lasts, plain attentions of `unet` are exported as `MultiHeadAttention`.

    Those that do more than project, attend and project, as with a norm of their own or an adapter,
    stay as they are.
    """
    before = dict(unet.attn_processors)
    own = {
        name: _InOne() if _is_plain(unet.get_submodule(name.removesuffix(".processor"))) else kept
        for name, kept in before.items()
    }
    unet.set_attn_processor(own)
    try:
        yield
    finally:
        unet.set_attn_processor(before)


class _InOne:
    """A processor of diffusers' `Attention`, for modules of which `_is_plain` is true."""

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **_unused: Any,  # masks and time embeddings, which a plain attention does not have
    ) -> Tensor:
        """(rows, positions, features) of the same shape as `hidden_states`."""
        read = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        mixed: Tensor = _Attend.apply(  # type: ignore[no-untyped-call]
            attention.to_q(hidden_states),
            attention.to_k(read),
            attention.to_v(read),
            attention.heads,
        )
        projected: Tensor = attention.to_out[0](mixed)
        return projected


class _Attend(torch.autograd.Function):
    """softmax(q k^T / sqrt(d)) v in each head; q (rows, n, width), k and v (rows, m, width)."""

    @staticmethod
    def forward(_context: Any, query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
        mixed = functional.scaled_dot_product_attention(
            _by_head(query, heads), _by_head(key, heads), _by_head(value, heads)
        )
        return mixed.transpose(1, 2).flatten(2)

    @staticmethod
    def symbolic(graph: Any, query: Any, key: Any, value: Any, heads: int) -> Any:
        mixed = graph.op("com.microsoft::MultiHeadAttention", query, key, value, num_heads_i=heads)
        mixed.setType(query.type())
        return mixed


def _by_head(tensor: Tensor, heads: int) -> Tensor:
    rows, positions, width = tensor.shape
    return tensor.view(rows, positions, heads, width // heads).transpose(1, 2)


def _is_plain(attention: Any) -> bool:
    extras = ("group_norm", "spatial_norm", "norm_cross", "norm_q", "norm_k", "added_kv_proj_dim")
    return (
        isinstance(attention.get_processor(), _USUAL)
        and not any(getattr(attention, name, None) for name in extras)
        and not attention.residual_connection
        and attention.rescale_output_factor == 1
        and attention.to_k is not None
    )
