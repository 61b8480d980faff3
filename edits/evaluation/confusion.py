"""Which name an edited text encoder answers, found on embeddings alone: no picture is drawn.

A name's direction is what the pristine model answers to it in plain captions, less its answer to
the other candidate names in the same captions. A caption reads as the name whose direction the
model's answer to it points to, less the pristine mean of that caption over the candidates. After an
edit the concept's captions should no longer read as the concept, and every neighbour's still as
itself. Captions that the pristine model itself does not read as their own name say nothing, and are
left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edits.evaluation.rates import Rate
from edits.method import Editor, EditSpec
from edits.method.captions import PAPER_TEMPLATES, Caption, fill
from edits.method.components import PROMPT
from edits.method.sites import Site, resolve

_BATCH = 64
_LAYERS_READ = 8  # cross-attention layers that are read; all of them answer alike


@dataclass(frozen=True)
class Confusion:
    """What the captions of an edit read as.

    target: captions of the concept that still read as it. kept: the neighbours' captions that still
    read as themselves; lost names those that do not. reached: how much of the way from the concept
    to the anchor the concept's captions went, 1 is all of it. moved: how far the neighbours' went,
    in the same unit.
    """

    target: Rate
    kept: Rate
    reached: float
    moved: float
    lost: tuple[str, ...]

    @property
    def drop(self) -> float:
        """Share of the neighbours' captions that changed their reading."""
        return 1 - self.kept.value if self.kept.count else 0.0

    @property
    def score(self) -> float:
        """Harmonic mean of (1 - target) and kept; ties are broken by what moved and what did not.

        The second term is at most 0.01, less than one caption in any set of captions used here.
        """
        gone, kept = 1 - self.target.value, 1 - self.drop
        harmonic = 2 * gone * kept / (gone + kept) if gone + kept else 0.0
        return harmonic + 0.01 * max(0.0, 1 - abs(1 - self.reached) - self.moved)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "target": self.target.document(),
            "kept": self.kept.document(),
            "reached": round(self.reached, 4),
            "neighbours_moved": round(self.moved, 4),
            "lost": list(self.lost),
        }


class ConfusionTest:
    """The captions of one edit, and what the pristine model answers to them, encoded once."""

    def __init__(
        self, editor: Editor, spec: EditSpec, templates: Sequence[str], neighbours: Sequence[str]
    ) -> None:
        self._editor = editor
        self._spec = spec
        self._neighbours = tuple(neighbours)
        encoders = editor.components.encoders
        sites = editor.sites(spec)
        self._encoders = sorted({s.component for s in sites if s.component in encoders})
        reads_prompt = [s for s in sites if editor.components.source(s) == PROMPT]
        self._layers = tuple(reads_prompt[:_LAYERS_READ])
        self._templates = tuple(t for t in templates if self._fits(t))
        self._plain = tuple(t for t in PAPER_TEMPLATES if self._fits(t)) or PAPER_TEMPLATES[:1]

    def run(self, modules: Mapping[str, nn.Module]) -> Confusion:
        """Read the captions with the edited `modules`, as `Editor.apply` answers them."""
        spec = self._spec
        edited = self._answers([fill(t, name) for t, name in self._rows], modules)
        reads_own: dict[bool, list[bool]] = {True: [], False: []}
        shares: dict[bool, list[float]] = {True: [], False: []}
        lost = set()
        for (template, name), answer in zip(self._rows, edited, strict=True):
            is_concept = name in spec.names
            own, anchor = (self._pristine[template, n] for n in (name, spec.anchor))
            still = self._reads(template, answer) in (spec.names if is_concept else (name,))
            reads_own[is_concept].append(still)
            step, change = anchor - own, answer - own
            length = float(step.norm()) or 1.0
            shares[is_concept].append(
                float(change @ step) / length**2 if is_concept else float(change.norm()) / length
            )
            if not is_concept and not still:
                lost.add(name)
        return Confusion(
            target=Rate(sum(reads_own[True]), len(reads_own[True])),
            kept=Rate(sum(reads_own[False]), len(reads_own[False])),
            reached=_mean(shares[True]),
            moved=_mean(shares[False]),
            lost=tuple(name for name in self._neighbours if name in lost),
        )

    @property
    def sameness(self) -> float:
        """Cosine of the anchor's direction and the concept's: near 1, the model knows one thing."""
        place = {name: i for i, name in enumerate(self._candidates)}
        concept, anchor = (
            self._directions[place[name]] for name in (self._spec.concept, self._spec.anchor)
        )
        return float(concept @ anchor)

    @cached_property
    def _rows(self) -> list[tuple[str, str]]:
        """The captions, as template and name, that the pristine model reads as what they name."""
        spec = self._spec
        rows = []
        for template in self._templates:
            for name in (*spec.names, *self._neighbours):
                meant = spec.names if name in spec.names else (name,)
                if self._reads(template, self._pristine[template, name]) in meant:
                    rows.append((template, name))
        return rows

    @cached_property
    def _candidates(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self._spec.names, self._spec.anchor, *self._neighbours)))

    @cached_property
    def _pristine(self) -> dict[tuple[str, str], Tensor]:
        """The pristine model's answer to every candidate name in every template."""
        templates = dict.fromkeys((*self._plain, *self._templates))
        places = [(template, name) for template in templates for name in self._candidates]
        answers = self._answers([fill(template, name) for template, name in places], {})
        return dict(zip(places, answers, strict=True))

    @cached_property
    def _directions(self) -> Tensor:
        """Unit vectors (candidates, width)."""
        plain = torch.stack(
            [
                torch.stack([self._pristine[t, n] for n in self._candidates]) - self._middle(t)
                for t in self._plain
            ]
        )
        return functional.normalize(plain.mean(0), dim=-1)

    def _fits(self, template: str) -> bool:
        """Whether every candidate's caption is within what every encoder reads."""
        captions = [fill(template, name) for name in self._candidates]
        encoders = self._editor.components.encoders.values()
        return all(all(encoder.tokenizer.fits(captions)) for encoder in encoders)

    def _middle(self, template: str) -> Tensor:
        return torch.stack([self._pristine[template, n] for n in self._candidates]).mean(0)

    def _reads(self, template: str, answer: Tensor) -> str:
        return self._candidates[
            int((self._directions @ (answer - self._middle(template))).argmax())
        ]

    @torch.no_grad()
    def _answers(
        self, captions: Sequence[Caption], modules: Mapping[str, nn.Module]
    ) -> list[Tensor]:
        """For each caption: what is said at end-of-text, and the mean over its words."""
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


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0
