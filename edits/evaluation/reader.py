"""What the edited parts of a model answer to captions, as one vector each."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edits.errors import ConceptUntraceable
from edits.method import Editor, EditSpec
from edits.method.captions import Caption
from edits.method.components import PROMPT
from edits.method.sites import Site, resolve

_BATCH = 64
_LAYERS_READ = 8  # cross-attention layers that are read; all of them answer alike


class Reader:
    """Reads the text encoders and the cross-attention layers that some edits change."""

    def __init__(self, editor: Editor, specs: Sequence[EditSpec]) -> None:
        self._editor = editor
        encoders = editor.components.encoders
        sites = sorted({site for spec in specs for site in editor.sites(spec)})
        self._encoders = sorted({s.component for s in sites if s.component in encoders})
        reads_prompt = [s for s in sites if editor.components.source(s) == PROMPT]
        self._layers = tuple(reads_prompt[:_LAYERS_READ])

    @torch.no_grad()
    def answers(
        self, captions: Sequence[Caption], modules: Mapping[str, nn.Module]
    ) -> list[Tensor]:
        """For each caption what is said at end-of-text, and the mean over its words.

        `modules` are edited components, as `Editor.apply` answers them; others are pristine. Raises
        ConceptUntraceable without a caption: where none fits, nothing can be examined.
        """
        if not captions:
            raise ConceptUntraceable(
                "no caption to examine the edit by fits what the encoder reads; shorten the "
                "concept, its aliases or the anchor",
                param="spec",
            )
        parts = [self._encoded(name, captions, modules) for name in self._encoders]
        if self._layers:
            parts.append(self._attended(captions, modules))
        return list(torch.cat(parts, dim=-1))

    def _encoded(
        self, name: str, captions: Sequence[Caption], modules: Mapping[str, nn.Module]
    ) -> Tensor:
        encoder = self._editor.components.encoders[name]
        module = modules.get(name, encoder.module)
        tokens = encoder.tokenizer(captions)
        longest = max(len(t.ids) for t in tokens)
        # Causal: what stands behind end-of-text does not reach it, so nothing is padded to the end.
        ids = torch.tensor([[*t.ids, *(t.ids[-1],) * (longest - len(t.ids))] for t in tokens])
        device = next(module.parameters()).device
        hidden = torch.cat(
            [module(part.to(device)).last_hidden_state for part in torch.split(ids, _BATCH)]
        )
        return _read(hidden.float(), [len(t.ids) for t in tokens])

    def _attended(self, captions: Sequence[Caption], modules: Mapping[str, nn.Module]) -> Tensor:
        components = self._editor.components
        tokens = components.tokenizer(PROMPT)(captions)
        embeddings = components.embed([caption.text for caption in captions])
        lengths = [len(t.ids) for t in tokens]
        return torch.cat(
            [
                _read(_layer_output(self._layer(s, modules), embeddings), lengths)
                for s in self._layers
            ],
            dim=-1,
        )

    def _layer(self, site: Site, modules: Mapping[str, nn.Module]) -> nn.Linear:
        if site.component in modules:
            return resolve(modules[site.component], site)
        return self._editor.components.layer(site)


def _layer_output(layer: nn.Linear, embeddings: Tensor) -> Tensor:
    output: Tensor = layer(embeddings.to(layer.weight.dtype))
    return output.float()


def _read(states: Tensor, lengths: Sequence[int]) -> Tensor:
    """States (captions, positions, width): end-of-text beside the mean of words, (.., 2 width)."""
    ends = torch.stack([row[length - 1] for row, length in zip(states, lengths, strict=True)])
    means = torch.stack(
        [row[1:length].mean(0) for row, length in zip(states, lengths, strict=True)]
    )
    return torch.cat([ends, means], dim=-1)
