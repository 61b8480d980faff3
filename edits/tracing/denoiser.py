"""Restored runs of the denoiser, and direct effects of its cross-attention layers.

Clean and restored rows are drawn side by side in one batch: at every step a restored row takes a
module's output from its clean row, so nothing is stored and many sites share one pass.

Classifier-free guidance runs the denoiser on an unconditional and a conditional half. A module is
restored in both halves unless `branches` is `conditional`: the unconditional half never sees the
caption, but its latents drift with those of the corrupted run.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edits.tracing.hooks import hooked
from edits.tracing.layout import Conditioning, Layout

Branches = Literal["both", "conditional"]


@dataclass(frozen=True)
class Row:
    """One picture of a batch: modules whose output it takes from row `source`, by module path.

    `replaced` are cross-attention modules that read row `reads` of the replacement conditioning
    (LocoGen's direct effect) instead of the row's own.
    """

    restored: frozenset[str] = frozenset()
    source: int = 0
    replaced: frozenset[str] = frozenset()
    reads: int = 0


@dataclass(frozen=True)
class StepWindow:
    """Steps [first, stop) in which rows are restored; `stop` None: to the end."""

    first: int = 0
    stop: int | None = None

    def __contains__(self, step: int) -> bool:
        return self.first <= step and (self.stop is None or step < self.stop)


@contextmanager
def restoring(
    layout: Layout,
    rows: Sequence[Row],
    *,
    window: StepWindow = StepWindow(),
    branches: Branches = "both",
    replacement: Conditioning | None = None,
) -> Iterator[None]:
    """Draw batches of exactly these rows meanwhile."""
    step = -1

    def count(*_call: Any) -> None:
        nonlocal step
        step += 1

    def restoration(path: str) -> Any:
        mine = [number for number, row in enumerate(rows) if path in row.restored]
        targets = torch.tensor(mine)
        sources = torch.tensor([rows[number].source for number in mine])

        def hook(_module: nn.Module, _arguments: Any, output: Any) -> Any:
            if step not in window:
                return None
            return _each(output, lambda part: _copied(part, targets, sources, len(rows), branches))

        return hook

    def substitution(path: str) -> Any:
        mine = [number for number, row in enumerate(rows) if path in row.replaced]
        reads = [rows[number].reads for number in mine]

        def hook(_module: nn.Module, arguments: Any, keywords: dict[str, Any]) -> Any:
            assert replacement is not None  # noqa: S101 - rows name what they read
            context = keywords["encoder_hidden_states"].clone()
            conditional = len(context) - len(rows)  # the conditional half is the last one
            anchors = replacement.prompt[reads].to(context)
            context[[conditional + number for number in mine]] = anchors
            return arguments, {**keywords, "encoder_hidden_states": context}

        return hook

    modules = {unit.path: unit.module for unit in layout.units}
    restored = sorted({path for row in rows for path in row.restored})
    replaced = sorted({path for row in rows for path in row.replaced})
    before = [(layout.denoiser, count), *((modules[path], substitution(path)) for path in replaced)]
    with hooked(before=before, after=[(modules[path], restoration(path)) for path in restored]):
        yield


def _copied(
    tensor: Tensor, targets: Tensor, sources: Tensor, rows: int, branches: Branches
) -> Tensor:
    """`tensor` (halves x rows, ...) with the target rows taken from the source rows."""
    halves = len(tensor) // rows
    first = halves - 1 if branches == "conditional" else 0
    copied = tensor.clone()
    for half in range(first, halves):
        copied[half * rows + targets] = tensor[half * rows + sources]
    return copied


def _each(output: Any, change: Any) -> Any:
    """Apply `change` to every tensor of a module's output: joint attention answers two."""
    if isinstance(output, tuple):
        return tuple(change(part) if isinstance(part, Tensor) else part for part in output)
    return change(output)
