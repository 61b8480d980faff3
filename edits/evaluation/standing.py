"""Whether edits that stand already still do what they were published for, beside another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from edits.evaluation.reader import Reader
from edits.method import Editor, EditSpec
from edits.method.captions import PAPER_TEMPLATES, fill

# Edits that are looked at, those nearest to the new one: it shares most of its keys with them.
LOOKED_AT = 16
_NAMES = 4  # of each of them
_TEMPLATES = PAPER_TEMPLATES[:2]
# Of the way from the concept to its anchor: pictures of what goes less far show the concept again.
ENOUGH = 2 / 3
NOTHING = 1 / 3  # of the way: an edit that goes less far removes nothing that could come back
_SAME = 0.01  # of the way; what another edit changes less has not been undone by it


@dataclass(frozen=True)
class _Way:
    """A pristine answer to a concept, and the step from it to the answer to the anchor."""

    edit: EditSpec
    start: Tensor
    step: Tensor


class StandingTest:
    """The edits that stand beside `spec`, of which the nearest are looked at."""

    def __init__(self, editor: Editor, spec: EditSpec, others: Sequence[EditSpec]) -> None:
        self._others = _nearest(editor, spec, others)
        if not self._others:
            return
        self._reader = Reader(editor, self._others)
        rows = [
            (edit, template, name)
            for edit in self._others
            for name in edit.names[:_NAMES]
            for template in _TEMPLATES
        ]
        self._captions = [fill(template, name) for _, template, name in rows]
        anchors = [fill(template, edit.anchor) for edit, template, _ in rows]
        starts = self._reader.answers(self._captions, {})
        ends = self._reader.answers(anchors, {})
        self._ways = [
            _Way(edit, start, end - start)
            for (edit, _, _), start, end in zip(rows, starts, ends, strict=True)
        ]

    def run(self, modules: Mapping[str, nn.Module]) -> dict[str, float]:
        """How far each edit that was looked at brings its concept, 1 is all of the way."""
        if not self._others:
            return {}
        shares: dict[str, list[float]] = {}
        for way, answer in zip(
            self._ways, self._reader.answers(self._captions, modules), strict=True
        ):
            share = float((answer - way.start) @ way.step) / (float(way.step @ way.step) or 1.0)
            shares.setdefault(way.edit.name, []).append(share)
        return {name: sum(found) / len(found) for name, found in shares.items()}


def undone(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[str, ...]:
    """The edits that removed something, do not go far enough now, and less far than they did."""
    return tuple(
        name
        for name, share in after.items()
        if before[name] >= NOTHING and share < min(ENOUGH, before[name] - _SAME)
    )


def _nearest(editor: Editor, spec: EditSpec, others: Sequence[EditSpec]) -> tuple[EditSpec, ...]:
    if len(others) <= LOOKED_AT:
        return tuple(others)
    own, *rest = functional.normalize(
        editor.neighbours.embed([spec.concept, *(edit.concept for edit in others)]), dim=-1
    )
    order = (torch.stack(rest) @ own).argsort(descending=True, stable=True)
    return tuple(others[i] for i in order[:LOOKED_AT].tolist())
