"""Which name an edited text encoder answers, found on embeddings alone: no picture is drawn.

A name's direction is what the pristine model answers to it in plain captions, less its answer to
the other candidate names in the same captions. A caption reads as the name whose direction the
model's answer to it points to, less the pristine mean of that caption over the candidates. After an
edit the concept's captions should no longer read as the concept, a fact's should read as the new
target, and every neighbour's still as itself. Captions that the pristine model itself does not read
as their own name say nothing, and are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from edits.evaluation.rates import Rate
from edits.evaluation.reader import Reader
from edits.evaluation.standing import ENOUGH
from edits.method import Editor, EditSpec
from edits.method.captions import PAPER_TEMPLATES, fill

_CHANCE = 0.01  # harm up to which one caption of a few dozen may have flipped by chance
_TIE = 0.01  # less than one caption in any set of captions used here


@dataclass(frozen=True)
class Confusion:
    """What the captions of an edit read as.

    target: captions of the concept that still read as it; of a fact, those that do not read as its
    anchor, the new target. kept: the neighbours' captions that still read as themselves; lost names
    those that do not, gone those of which none does. reached: how much of the way from the concept
    to the anchor the concept's captions went, 1 is all of it. moved: how far the neighbours' went,
    in the same unit.
    """

    target: Rate
    kept: Rate
    reached: float
    moved: float
    lost: tuple[str, ...]
    gone: tuple[str, ...] = ()

    @property
    def drop(self) -> float:
        """Share of the neighbours' captions that changed their reading."""
        return 1 - self.kept.value if self.kept.count else 0.0

    @property
    def harm(self) -> float:
        """The lower end of the drop's interval: one caption that flips by chance is no proof.

        All captions of one name are: then at least what they are of all.
        """
        if not self.kept.count:
            return 0.0
        lower = 1 - self.kept.interval[1]
        return max(lower, self.drop) if self.gone else lower

    @property
    def holds(self) -> bool:
        """Whether the concept is gone, far enough on its way, and nothing else is harmed."""
        return not self.target.hits and self.reached > ENOUGH and self.harm <= _CHANCE

    @property
    def score(self) -> float:
        """Harmonic mean of (1 - target) and kept; of equals, what is farther on its way."""
        gone, kept = 1 - self.target.value, 1 - self.drop
        harmonic = 2 * gone * kept / (gone + kept) if gone + kept else 0.0
        return harmonic + _TIE * max(0.0, 1 - abs(1 - self.reached))

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
        self._reader = Reader(editor, [spec])
        self._templates = tuple(t for t in templates if self._fits(t))
        self._plain = tuple(t for t in PAPER_TEMPLATES if self._fits(t)) or PAPER_TEMPLATES[:1]

    def run(self, modules: Mapping[str, nn.Module]) -> Confusion:
        """Read the captions with the edited `modules`, as `Editor.apply` answers them."""
        spec = self._spec
        edited = self._reader.answers([fill(t, name) for t, name in self._rows], modules)
        reads_own: dict[bool, list[bool]] = {True: [], False: []}
        shares: dict[bool, list[float]] = {True: [], False: []}
        kept: dict[str, list[bool]] = {}
        for (template, name), answer in zip(self._rows, edited, strict=True):
            is_concept = name in spec.names
            own, anchor = (self._pristine[template, n] for n in (name, spec.anchor))
            read = self._reads(template, answer)
            still = self._fails(read) if is_concept else read == name
            reads_own[is_concept].append(still)
            step, change = anchor - own, answer - own
            length = float(step.norm()) or 1.0
            shares[is_concept].append(
                float(change @ step) / length**2 if is_concept else float(change.norm()) / length
            )
            if not is_concept:
                kept.setdefault(name, []).append(still)
        return Confusion(
            target=Rate(sum(reads_own[True]), len(reads_own[True])),
            kept=Rate(sum(reads_own[False]), len(reads_own[False])),
            reached=_mean(shares[True]),
            moved=_mean(shares[False]),
            lost=tuple(name for name in self._neighbours if not all(kept.get(name, [True]))),
            gone=tuple(name for name in self._neighbours if not any(kept.get(name, [True]))),
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
        answers = self._reader.answers([fill(template, name) for template, name in places], {})
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

    def _fails(self, read: str) -> bool:
        """Whether a caption of the concept that reads so is not what the edit is for."""
        spec = self._spec
        return read != spec.anchor if spec.kind == "fact" else read in spec.names

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


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else 0.0
