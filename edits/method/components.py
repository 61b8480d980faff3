"""The parts of a pipeline in which a site may lie, and what the layers there read."""

import copy
import inspect
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edits.errors import SiteUnknown
from edits.method.sites import Site, resolve
from edits.method.tokens import CaptionTokenizer

ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
DENOISERS = ("unet", "transformer")
# What every cross-attention layer of the denoiser reads: its keys are the same for all of them.
PROMPT = Site("prompt", "embeddings")


@dataclass(frozen=True)
class TextEncoder:
    """A CLIP text encoder of the pipeline, and its tokenizer."""

    module: nn.Module
    tokenizer: CaptionTokenizer


class Components:
    """One pipeline's CLIP text encoders and its denoiser. Read only.

    `pipeline` is anything with the attributes of a diffusers pipeline.
    """

    def __init__(self, pipeline: Any) -> None:
        self.encoders: dict[str, TextEncoder] = {}
        uncovered = []
        for name in ENCODERS:
            module = getattr(pipeline, name, None)
            if module is None:
                continue
            tokenizer = getattr(pipeline, name.replace("text_encoder", "tokenizer"), None)
            if _is_clip(module) and tokenizer is not None:
                self.encoders[name] = TextEncoder(module, CaptionTokenizer(tokenizer))
            else:
                uncovered.append(f"{name} ({type(module).__name__})")
        if not self.encoders:
            raise SiteUnknown("the pipeline has no CLIP text encoder, and edits act on those")
        # Encoders that no edit reaches: what they read of a concept stays.
        self.uncovered = tuple(uncovered)
        self.modules: dict[str, nn.Module] = {n: e.module for n, e in self.encoders.items()}
        for name in DENOISERS:
            if isinstance(denoiser := getattr(pipeline, name, None), nn.Module):
                self.modules[name] = denoiser
        self._pipeline = pipeline
        self._twins: dict[str, nn.Module] = {}
        self._lock = threading.Lock()
        self._embedder: Any = None

    def layer(self, site: Site) -> nn.Linear:
        """The pristine layer of a site. Raises SiteUnknown."""
        if site.component not in self.modules:
            raise SiteUnknown(
                f"site {site} lies in no editable component; this model has "
                f"{', '.join(self.modules)}",
                param="spec.method.sites",
            )
        return resolve(self.modules[site.component], site)

    def twin(self, name: str) -> nn.Module:
        """`same_tensors` of a component, in evaluation mode. Nobody hooks it or changes it."""
        with self._lock:
            if name not in self._twins:
                self._twins[name] = same_tensors(self.modules[name]).eval()
            return self._twins[name]

    def source(self, site: Site) -> Site:
        """Sites with the same source read the same keys. Raises SiteUnknown.

        A layer of a text encoder is its own source; cross-attention layers of the denoiser read
        the prompt's embeddings. No other layer of the denoiser can be edited by text.
        """
        if site.component in self.encoders:
            return site
        parent, _, leaf = site.path.rpartition(".")
        attention = self.modules[site.component].get_submodule(parent)
        reads_text = leaf in ("to_k", "to_v") and getattr(attention, "is_cross_attention", False)
        if not reads_text:
            raise SiteUnknown(
                f"site {site} reads the picture, not the text; in the {site.component}, edits act "
                "on to_k and to_v of cross-attention only",
                param="spec.method.sites",
            )
        return PROMPT

    def tokenizer(self, source: Site) -> CaptionTokenizer:
        """Whose tokens the positions of the source's keys are."""
        name = source.component if source != PROMPT else next(iter(self.encoders))
        return self.encoders[name].tokenizer

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """The prompt embeddings (texts, positions, width), as the pipeline makes them, float64."""
        if self._embedder is None:
            # Encoding a prompt runs the pipeline's tokenizers: on copies, for other threads' sake.
            twin = copy.copy(self._pipeline)
            for name in ENCODERS:
                tokenizer = name.replace("text_encoder", "tokenizer")
                if getattr(twin, tokenizer, None) is not None:
                    setattr(twin, tokenizer, copy.deepcopy(getattr(twin, tokenizer)))
            self._embedder = twin
        encode = self._embedder.encode_prompt
        known = inspect.signature(encode).parameters
        arguments: dict[str, Any] = {
            "prompt": list(texts),
            "device": next(next(iter(self.encoders.values())).module.parameters()).device,
            "num_images_per_prompt": 1,
            "do_classifier_free_guidance": False,
        }
        arguments |= {name: list(texts) for name in ("prompt_2", "prompt_3") if name in known}
        embeddings: Tensor = encode(**arguments)[0].double()
        return embeddings


def same_tensors(module: nn.Module) -> nn.Module:
    """A copy of the module's structure around the very same parameters and buffers."""
    tensors = (*module.parameters(), *module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def with_layers(module: nn.Module, layers: Mapping[str, nn.Module]) -> nn.Module:
    """`module` with `layers` at those paths in place of its own. It stays as it is.

    Modules that hold a replaced layer are copied, all others and all tensors are the very same.
    """
    paths = {path[:at] for path in layers for at, mark in enumerate(path) if mark == "."} | {""}
    holders = [module.get_submodule(path) for path in paths]
    known: dict[int, Any] = {}
    for holder in holders:
        known |= {id(child): child for child in holder.children()}
        known |= {id(tensor): tensor for tensor in holder.parameters(recurse=False)}
        known |= {id(tensor): tensor for tensor in holder.buffers(recurse=False)}
    for holder in holders:
        known.pop(id(holder), None)
    known |= {id(module.get_submodule(path)): layer for path, layer in layers.items()}
    edited: nn.Module = copy.deepcopy(module, known)
    return edited


def with_components(pipeline: Any, modules: Mapping[str, nn.Module]) -> Any:
    """A shallow copy of a pipeline that runs `modules` in place of its own of those names."""
    edited = copy.copy(pipeline)
    for name, module in modules.items():
        setattr(edited, name, module)
    return edited


def _is_clip(module: nn.Module) -> bool:
    """By structure: CLIP's text tower is causal and has these layers, T5's stack has others."""
    return any(name.endswith("layers.0.self_attn.out_proj") for name, _ in module.named_modules())
