"""Where a loaded pipeline keeps its text encoders and its denoiser: found, never listed.

A text encoder is traceable when it is a stack of layers that each hold one self-attention and one
MLP; a denoiser when it holds attention, feed-forward or residual blocks of diffusers. Stable
Diffusion 1.x and 2.x, SDXL and Stable Diffusion 3 are.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock, JointTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from edits.errors import PipelineUntraceable
from edits.tracing.hooks import hooked

TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
DENOISERS = ("unet", "transformer")
ATTENTION_NAMES = ("self_attn", "SelfAttention")
MLP_NAMES = ("mlp", "DenseReluDense")

# Name of a child of a denoiser's block -> the kind of unit that it is.
UNIT_KINDS: Mapping[type[nn.Module], Mapping[str, str]] = {
    BasicTransformerBlock: {"attn1": "self_attn", "attn2": "cross_attn", "ff": "ff"},
    JointTransformerBlock: {
        "attn": "joint_attn",
        "attn2": "self_attn",
        "ff": "ff",
        "ff_context": "ff_context",
    },
}
CROSS_ATTENTION = "cross_attn"
RESNET = "resnet"
# Where pooled text enters every block beside attention: SDXL's UNet, SD 3's transformer.
POOLED = {"add_embedding": "pooled", "time_text_embed": "pooled"}


@dataclass(frozen=True)
class EncoderLayer:
    """One layer of a text encoder, whose output is the residual stream, and its two parts."""

    residual: nn.Module
    self_attn: nn.Module
    mlp: nn.Module

    def module(self, name: str) -> nn.Module:
        """The part called self_attn, mlp or residual."""
        part: nn.Module = getattr(self, name)
        return part


@dataclass(frozen=True)
class Encoder:
    """One text encoder of a pipeline with its tokenizer; `limit` tokens are read of a caption."""

    component: str
    model: nn.Module
    tokenizer: Any
    embeddings: tuple[nn.Embedding, ...]
    layers: tuple[EncoderLayer, ...]
    limit: int

    @cached_property
    def embedding_std(self) -> float:
        """Standard deviation over all entries of the token embedding matrix."""
        return float(self.embeddings[0].weight.detach().float().std())


@dataclass(frozen=True)
class Unit:
    """One module of the denoiser that may be restored: its path and kind."""

    path: str
    kind: str
    module: nn.Module


@dataclass(frozen=True)
class Conditioning:
    """What the denoiser reads: `prompt` (rows, tokens, width), `pooled` (rows, width) or none."""

    prompt: Tensor
    pooled: Tensor | None

    def __len__(self) -> int:
        return len(self.prompt)

    def pick(self, rows: Sequence[int]) -> "Conditioning":
        """These rows, in this order."""
        return Conditioning(
            self.prompt[list(rows)], None if self.pooled is None else self.pooled[list(rows)]
        )

    def row_bytes(self, row: int) -> bytes:
        """The bits of one row: two rows with the same bits draw the same picture."""
        tensors = [self.prompt[row]] + ([] if self.pooled is None else [self.pooled[row]])
        return b"".join(
            t.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            for t in tensors
        )

    @staticmethod
    def stack(parts: Sequence["Conditioning"]) -> "Conditioning":
        """All rows of all parts."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Conditioning(
            torch.cat([part.prompt for part in parts]), torch.cat(pooled) if pooled else None
        )


@dataclass(frozen=True)
class Layout:
    """A pipeline seen as encoders and one denoiser."""

    pipeline: Any
    encoders: tuple[Encoder, ...]
    denoiser: nn.Module
    denoiser_name: str
    units: tuple[Unit, ...]  # in the order of the module tree; `execution_order` sorts them

    @classmethod
    def of(cls, pipeline: Any) -> "Layout":
        """Find the parts of a pipeline. Raises PipelineUntraceable, naming the pipeline's class."""
        name = type(pipeline).__name__
        encoders = tuple(_encoders(pipeline))
        if not encoders or not hasattr(pipeline, "encode_prompt"):
            raise PipelineUntraceable(
                f"{name} cannot be traced: it has no text encoder behind encode_prompt"
            )
        for component in DENOISERS:
            denoiser = getattr(pipeline, component, None)
            if denoiser is not None:
                units = tuple(_units(denoiser))
                if units:
                    return cls(pipeline, encoders, denoiser, component, units)
        raise PipelineUntraceable(
            f"{name} cannot be traced: it has no unet or transformer with attention, feed-forward "
            "or resnet blocks of a known kind"
        )

    @property
    def cross_attention(self) -> tuple[Unit, ...]:
        """The cross-attention modules."""
        return tuple(unit for unit in self.units if unit.kind == CROSS_ATTENTION)

    def encoder(self, component: str) -> Encoder:
        """The encoder that is called so."""
        return next(e for e in self.encoders if e.component == component)

    @torch.inference_mode()
    def encode(self, captions: Sequence[str]) -> Conditioning:
        """The pipeline's own encoding of captions, without the unconditional branch."""
        prompt, _, pooled, _ = self._encode_prompt(list(captions), guided=False)
        return Conditioning(prompt, pooled)

    @torch.inference_mode()
    def unconditional(self) -> Conditioning:
        """What the pipeline feeds to the unconditional branch of guidance: one row."""
        _, prompt, _, pooled = self._encode_prompt(["photo"], guided=True)
        return Conditioning(prompt, pooled)

    def _encode_prompt(self, captions: list[str], *, guided: bool) -> tuple[Any, Any, Any, Any]:
        encode = self.pipeline.encode_prompt
        known = inspect.signature(encode).parameters
        arguments: dict[str, Any] = {
            "prompt": captions,
            "device": self.pipeline.device,
            "num_images_per_prompt": 1,
            "do_classifier_free_guidance": guided,
        }
        arguments |= {name: captions for name in ("prompt_2", "prompt_3") if name in known}
        answer = encode(**arguments)
        if len(answer) == 2:
            return answer[0], answer[1], None, None
        if len(answer) == 4:
            return answer[0], answer[1], answer[2], answer[3]
        raise PipelineUntraceable(
            f"{type(self.pipeline).__name__} cannot be traced: its encode_prompt answers "
            f"{len(answer)} values, known are 2 (SD) and 4 (SDXL, SD 3)"
        )

    def execution_order(
        self, conditioning: Conditioning, guidance_scale: float
    ) -> tuple[Unit, ...]:
        """The units in the order in which one step of the denoiser runs them."""
        order: list[str] = []
        hooks = [
            (unit.module, lambda *_call, path=unit.path: order.append(path)) for unit in self.units
        ]
        with hooked(before=hooks):
            self.draw(
                conditioning,
                self.unconditional(),
                seeds=[0],
                steps=1,
                guidance_scale=guidance_scale,
                output_type="latent",
            )
        place = {path: order.index(path) for path in order}
        ran = (unit for unit in self.units if unit.path in place)
        return tuple(sorted(ran, key=lambda unit: place[unit.path]))

    @torch.inference_mode()
    def draw(
        self,
        conditioning: Conditioning,
        unconditional: Conditioning,
        *,
        seeds: Sequence[int],
        steps: int,
        guidance_scale: float,
        output_type: str = "pil",
    ) -> Any:
        """One picture per row by the pipeline's own loop; row i starts from `seeds[i]`."""
        rows = len(conditioning)
        arguments: dict[str, Any] = {
            "prompt_embeds": conditioning.prompt,
            "generator": [torch.Generator("cpu").manual_seed(seed) for seed in seeds],
            "num_inference_steps": steps,
            "guidance_scale": guidance_scale,
            "output_type": output_type,
        }
        if conditioning.pooled is not None:
            arguments["pooled_prompt_embeds"] = conditioning.pooled
        if guidance_scale > 1:
            arguments["negative_prompt_embeds"] = unconditional.prompt.expand(rows, -1, -1)
            if unconditional.pooled is not None:
                arguments["negative_pooled_prompt_embeds"] = unconditional.pooled.expand(rows, -1)
        return self.pipeline(**arguments).images


def _encoders(pipeline: Any) -> Iterator[Encoder]:
    for component in TEXT_ENCODERS:
        model = getattr(pipeline, component, None)
        if model is None:
            continue
        tokenizer = getattr(pipeline, component.replace("text_encoder", "tokenizer"), None)
        layers = _layers(model)
        if not layers or tokenizer is None:
            raise PipelineUntraceable(
                f"{type(pipeline).__name__} cannot be traced: its {component} "
                f"({type(model).__name__}) is no stack of layers with self-attention and MLP"
            )
        weight = model.get_input_embeddings().weight
        embeddings = tuple(
            module
            for module in model.modules()
            if isinstance(module, nn.Embedding) and module.weight.data_ptr() == weight.data_ptr()
        )
        yield Encoder(component, model, tokenizer, embeddings, layers, _limit(pipeline, tokenizer))


def _limit(pipeline: Any, tokenizer: Any) -> int:
    """Tokens that the pipeline reads of a caption: CLIP's positions, or its cut for T5."""
    limit = int(tokenizer.model_max_length)
    cut = inspect.signature(pipeline.encode_prompt).parameters.get("max_sequence_length")
    is_clip = "clip" in type(tokenizer).__name__.lower()
    return limit if cut is None or is_clip else min(limit, int(cut.default))


def _layers(model: nn.Module) -> tuple[EncoderLayer, ...]:
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m)]
    for stack in stacks:
        layers = [_layer(child) for child in stack]
        found = [layer for layer in layers if layer is not None]
        if len(found) == len(layers):
            return tuple(found)
    return ()


def _layer(block: nn.Module) -> EncoderLayer | None:
    by_name = {path.rsplit(".", 1)[-1]: module for path, module in block.named_modules()}
    attention = next((by_name[name] for name in ATTENTION_NAMES if name in by_name), None)
    mlp = next((by_name[name] for name in MLP_NAMES if name in by_name), None)
    if attention is None or mlp is None:
        return None
    return EncoderLayer(block, attention, mlp)


def _units(denoiser: nn.Module) -> Iterator[Unit]:
    for name, kind in POOLED.items():
        child = getattr(denoiser, name, None)
        if child is not None:
            yield Unit(name, kind, child)
    for path, module in denoiser.named_modules():
        if isinstance(module, ResnetBlock2D):
            yield Unit(path, RESNET, module)
        for block, names in UNIT_KINDS.items():
            if isinstance(module, block):
                for name, unit_kind in names.items():
                    part = getattr(module, name, None)
                    if part is not None:
                        yield Unit(f"{path}.{name}", unit_kind, part)
