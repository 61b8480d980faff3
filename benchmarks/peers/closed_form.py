"""The published closed-form editors: their keys and values, solved by our solver.

Each minimises sum_i |W k_i - v_i|^2 + ridge |W - W0|_F^2 at its sites, from the pristine weights,
over the captions, positions and row weights of its own publication: nothing is pinned or preserved
beyond what that says. Their captions end with the subject.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edits.method import QUICKFIX, EditSpec, resolve, with_components
from edits.method.components import same_tensors
from edits.method.solver import Rows, solve

PAPER_TEMPLATES = ("{x}", "a photo of {x}", "an image of {x}", "a picture of {x}")
LOCOEDIT_STYLE_TEMPLATES = (
    "{x}",
    "a painting in the style of {x}",
    "a photo in the style of {x}",
    "a picture in the style of {x}",
)


@dataclass(frozen=True)
class Prompts:
    """Captions that end with their subject: `states` (n, positions, width), `last` (n,)."""

    states: Tensor
    last: Tensor

    @property
    def at_last(self) -> Tensor:
        """The states at the last subject tokens (n, width)."""
        return self.states[torch.arange(len(self.last)), self.last]


@torch.no_grad()
def embeddings(pipeline: Any, captions: Sequence[str]) -> Prompts:
    """Final hidden states, float64: what cross-attention reads."""
    tokens = _tokens(pipeline, captions)
    states = pipeline.text_encoder(tokens.input_ids).last_hidden_state.double()
    return Prompts(states, tokens.attention_mask.sum(1) - 2)


@torch.no_grad()
def attention_mixes(pipeline: Any, captions: Sequence[str]) -> Prompts:
    """Inputs of the first self-attention's output projection, float64."""
    twin = same_tensors(pipeline.text_encoder).eval()
    seen: list[Tensor] = []
    resolve(twin, QUICKFIX).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    tokens = _tokens(pipeline, captions)
    twin(tokens.input_ids)
    return Prompts(seen[0].double(), tokens.attention_mask.sum(1) - 2)


def released(pipeline: Any, specs: Sequence[EditSpec], *, ridge: float) -> Any:
    """Diff-QuickFix as its notebook computes it, summed over concepts into one solve.

    Rows are the last subject token and every position behind it, aligned by offset; values are the
    layer's outputs, bias included, which the layer then adds again.
    """
    layer = resolve(pipeline.text_encoder, QUICKFIX)
    keys, wanted = [], []
    for spec in specs:
        concept = attention_mixes(pipeline, _filled(PAPER_TEMPLATES, spec.concept))
        anchor = attention_mixes(pipeline, _filled(PAPER_TEMPLATES, spec.anchor))
        for i, (start, other) in enumerate(zip(concept.last, anchor.last, strict=True)):
            places = torch.arange(int(start), concept.states.shape[1])
            aligned = (places - start + other).clamp(max=concept.states.shape[1] - 1)
            keys.append(concept.states[i, places])
            wanted.append(anchor.states[i, aligned])
    values = torch.cat(wanted) @ layer.weight.double().T
    if layer.bias is not None:
        values = values + layer.bias.double()
    edited = same_tensors(pipeline.text_encoder).eval()
    _set(resolve(edited, QUICKFIX), torch.cat(keys), values, ridge)
    return with_components(pipeline, {"text_encoder": edited})


def uce(
    pipeline: Any,
    specs: Sequence[EditSpec],
    preserve: Sequence[str],
    *,
    ridge: float,
    erase_scale: float,
    preserve_scale: float,
) -> Any:
    """Unified Concept Editing: bare names, last subject token, all to_k and to_v of attn2."""
    concepts = embeddings(pipeline, [spec.concept for spec in specs]).at_last
    anchors = embeddings(pipeline, [spec.anchor for spec in specs]).at_last
    weights = concepts.new_full((len(concepts),), erase_scale)
    if preserve:
        kept = embeddings(pipeline, preserve).at_last
        concepts, anchors = torch.cat([concepts, kept]), torch.cat([anchors, kept])
        weights = torch.cat([weights, weights.new_full((len(kept),), preserve_scale)])
    return _edit_cross_attention(pipeline, [("", concepts, anchors, weights)], ridge)


def time(pipeline: Any, specs: Sequence[EditSpec], *, ridge: float) -> Any:
    """TIME: every position of four captions, all to_k and to_v of attn2, all pairs in one solve.

    A caption's words in front of the concept are the same in the anchor's and so stay; a concept of
    more tokens than its anchor has its surplus mapped to the anchor's last one.
    """
    keys, wanted = [], []
    for spec in specs:
        concept = embeddings(pipeline, _filled(PAPER_TEMPLATES, spec.concept))
        anchor = embeddings(pipeline, _filled(PAPER_TEMPLATES, spec.anchor))
        positions = torch.arange(concept.states.shape[1])
        for i, (last, other) in enumerate(zip(concept.last, anchor.last, strict=True)):
            before = positions.clamp(max=int(other))
            behind = (positions - last + other).clamp(max=len(positions) - 1)
            keys.append(concept.states[i])
            wanted.append(anchor.states[i, torch.where(positions < last, before, behind)])
    rows = torch.cat(keys)
    return _edit_cross_attention(
        pipeline, [("", rows, torch.cat(wanted), rows.new_ones(len(rows)))], ridge
    )


def locoedit(
    pipeline: Any, specs: Sequence[EditSpec], layers: Mapping[str, Sequence[str]], *, ridge: float
) -> Any:
    """LocoEdit: last subject token of four captions, to_k and to_v of each kind's own layers.

    `layers` are prefixes of their names by kind; a layer of several kinds is solved over all.
    """
    parts = []
    for spec in specs:
        templates = LOCOEDIT_STYLE_TEMPLATES if spec.kind == "style" else PAPER_TEMPLATES
        keys = embeddings(pipeline, _filled(templates, spec.concept)).at_last
        wanted = embeddings(pipeline, _filled(templates, spec.anchor)).at_last
        parts += [(name, keys, wanted, keys.new_ones(len(keys))) for name in layers[spec.kind]]
    return _edit_cross_attention(pipeline, parts, ridge)


def cross_attention_layers(unet: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Names and modules of to_k and to_v in every cross-attention."""
    for name, module in unet.named_modules():
        if name.endswith((".attn2.to_k", ".attn2.to_v")) and isinstance(module, nn.Linear):
            yield name, module


def _edit_cross_attention(
    pipeline: Any, parts: Sequence[tuple[str, Tensor, Tensor, Tensor]], ridge: float
) -> Any:
    """Parts are a layer's prefix, keys (n, width), the keys they are mapped to, and weights (n,).

    Every layer is solved once, over all parts whose prefix its name has.
    """
    edited = same_tensors(pipeline.unet).eval()
    for name, layer in cross_attention_layers(edited):
        mine = [part for part in parts if name.startswith(part[0])]
        if mine:
            columns = list(zip(*mine, strict=True))[1:]
            keys, wanted, weights = (torch.cat(column) for column in columns)
            _set(layer, keys, wanted @ layer.weight.double().T, ridge, weights)
    return with_components(pipeline, {"unet": edited})


def _set(
    layer: nn.Linear, keys: Tensor, values: Tensor, ridge: float, weights: Tensor | None = None
) -> None:
    rows = Rows(keys, values, keys.new_ones(len(keys)) if weights is None else weights)
    weight = layer.weight.double() + solve(layer.weight, rows, ridge=ridge)
    layer.weight = nn.Parameter(weight.to(layer.weight.dtype), requires_grad=False)


def _filled(templates: Sequence[str], name: str) -> list[str]:
    return [template.format(x=name) for template in templates]


def _tokens(pipeline: Any, captions: Sequence[str]) -> Any:
    return pipeline.tokenizer(list(captions), padding="max_length", return_tensors="pt")
