"""Input vectors that make the edited encoder answer as the pristine one answers to the concept.

The counterpart, without any picture, of the concept inversion of Pham et al., 2024 (arXiv
2308.01508). One to four vectors take the place of the concept's token embeddings; they are learned
so that in every template the edited encoder's states, from the last subject token on, come near the
pristine encoder's for the concept. Nobody can type such a vector, but who may upload an embedding
can use it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from edits.evaluation.attacks.encoder import GRADIENT_PASSES, PLACEHOLDER, EncoderView
from edits.evaluation.attacks.target import Target, frame

MAX_VECTORS = 4


@dataclass(frozen=True)
class InversionOptions:
    """Adam's steps and rate, in units of the token embeddings' standard deviation.

    Raises ValueError for counts of vectors that are not within 1 and 4.
    """

    vectors: tuple[int, ...] = (1, 2, 4)
    steps: int = 400
    rate: float = 0.1

    def __post_init__(self) -> None:
        if not self.vectors or not all(1 <= k <= MAX_VECTORS for k in self.vectors):
            raise ValueError(f"an inversion learns 1 to {MAX_VECTORS} vectors")


@dataclass(frozen=True)
class Inversion:
    """Learned `vectors` (k, width), and mean squared errors to the pristine answers to the concept.

    `start` is the error of the concept's own embeddings, which the edit moves; `anchor` that of the
    pristine answers to the anchor; `loss` that of the vectors.
    """

    vectors: Tensor
    loss: float
    start: float
    anchor: float

    @property
    def ratio_to_start(self) -> float:
        """What is left of the edit: 0, the concept is back; 1, nothing was gained."""
        return self.loss / self.start if self.start else float("nan")

    @property
    def ratio_to_anchor(self) -> float:
        """The error against the distance of anchor and concept."""
        return self.loss / self.anchor if self.anchor else float("nan")


def learn_vectors(
    pristine: EncoderView,
    edited: EncoderView,
    target: Target,
    options: InversionOptions,
    *,
    count: int,
    budget: int,
    seed: int,
) -> Inversion:
    """The `count` vectors of least error that Adam meets within `budget` prompts run."""
    wanted = list(_tails(pristine, target, target.concept))
    anchor = list(_tails(pristine, target, target.anchor))
    own = list(_tails(edited, target, target.concept))
    name = " ".join([PLACEHOLDER] * count)
    ids = edited.tokenise([spaced(template, name) for template in target.templates])
    lasts = [_last(edited, template, name) for template in target.templates]

    def error(vectors: Tensor) -> Tensor:
        states = edited.from_vectors(ids, vectors).states
        tails = [row[last:] for row, last in zip(states, lasts, strict=True)]
        return _error(tails, wanted)

    vectors, scale = _start(edited, target, count, seed)
    vectors.requires_grad_()
    optimiser = torch.optim.Adam([vectors], lr=options.rate * scale)
    best, least = vectors.detach().clone(), float("inf")
    end = edited.passes + budget
    steps = max(1, options.steps)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        if edited.passes + (1 + GRADIENT_PASSES) * len(ids) > end:
            break
        with torch.enable_grad():
            loss = error(vectors)
            # Not backward(): the encoder's own parameters are shared and must stay untouched.
            (vectors.grad,) = torch.autograd.grad(loss, vectors)
        if loss.item() < least:
            best, least = vectors.detach().clone(), loss.item()
        optimiser.step()
        schedule.step()
    return Inversion(best, least, _error(own, wanted).item(), _error(anchor, wanted).item())


def _start(edited: EncoderView, target: Target, count: int, seed: int) -> tuple[Tensor, float]:
    """The concept's last `count` embeddings, the first one repeated, with a little noise."""
    (words,) = edited.words([target.concept])
    words = ([words[0]] * count + words)[-count:]
    scale = edited.table.float().std().item()
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, edited.table.shape[1], generator=generator)
    own = edited.table[torch.tensor(words, device=edited.table.device)].float()
    return own + 0.1 * scale * noise.to(own.device), scale


def _tails(view: EncoderView, target: Target, name: str) -> Iterator[Tensor]:
    """States (positions, width) of each prompt, from the last token of `name` on."""
    states = view.from_texts([spaced(template, name) for template in target.templates]).states
    for template, row in zip(target.templates, states, strict=True):
        yield row[_last(view, template, name) :]


def spaced(template: str, name: str) -> str:
    """`template` with `name` between spaces, so that no sign behind it joins a placeholder."""
    before, behind = frame(template)
    return " ".join(f"{before} {name} {behind}".split())


def _last(view: EncoderView, template: str, name: str) -> int:
    """The position of the last token of `name` in a prompt."""
    (words,) = view.words([f"{frame(template)[0]}{name}"])
    return len(words)


def _error(tails: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """Mean squared difference of states, aligned by their offset from the last subject token."""
    errors = []
    for tail, goal in zip(tails, wanted, strict=True):
        rows = min(len(tail), len(goal))
        errors.append((tail[:rows] - goal[:rows]).square().mean())
    return torch.stack(errors).mean()
