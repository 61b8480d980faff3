"""A token search led by gradients: the idea of MMA-Diffusion, with the step of GCG.

Yang et al., 2024 (arXiv 2311.17516) swap tokens until a prompt's embedding is near that of the
unwanted prompt; Zou et al., 2023 (arXiv 2307.15043) choose the swaps: the gradient of the loss with
respect to a token's one-hot vector ranks all replacements to first order, a batch drawn from the
best of them is tried, and the best that was tried is taken. The loss is 1 - presence: how far the
edited encoder's answer is from what the pristine one answers to the concept's prompts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edits.evaluation.attacks.encoder import GRADIENT_PASSES, EncoderView
from edits.evaluation.attacks.found import Pool, Searched
from edits.evaluation.attacks.presence import Presence
from edits.evaluation.attacks.target import Target
from edits.evaluation.attacks.typeable import Typeable


@dataclass(frozen=True)
class GradientOptions:
    """`candidates` per place come from the gradient, `batch` swaps are tried in a step.

    After `patience` steps without a better prompt the search starts again from a random one.
    Raises ValueError for values that make no search.
    """

    length: int = 8
    candidates: int = 64
    batch: int = 64
    patience: int = 8

    def __post_init__(self) -> None:
        if min(self.length, self.candidates, self.batch, self.patience) < 1:
            raise ValueError("length, candidates, batch and patience are at least 1")


def gradient_search(
    searched: EncoderView,
    presence: Presence,
    target: Target,
    options: GradientOptions,
    *,
    budget: int,
    seed: int,
    keep: int,
) -> Searched:
    """The `keep` prompts of most presence that were tried, best first.

    Ends before `searched` would run more than `budget` prompts.
    """
    typeable = Typeable(searched, target)
    generator = torch.Generator().manual_seed(seed)
    length = min(options.length, typeable.room)
    pool = Pool()
    end = searched.passes + budget
    step_passes = 1 + GRADIENT_PASSES + options.batch
    row: tuple[int, ...] = ()
    loss, stuck = 0.0, 0
    while searched.passes + step_passes <= end:
        if not row:
            (row,) = typeable.draw(1, length, generator)
            loss, stuck = float("inf"), 0
        gradient = _token_gradient(searched, presence, typeable, row)
        tried = _swaps(typeable, row, gradient, options, generator)
        if tried:
            with torch.no_grad():
                scores = presence(searched.from_ids(typeable.ids(tried)))
            losses = dict(zip(tried, (1 - scores).tolist(), strict=True))
            pool.add(losses)
            best = min(losses, key=losses.__getitem__)
            if losses[best] < loss:
                row, loss, stuck = best, losses[best], 0
                continue
        stuck += 1
        if stuck >= options.patience:
            row = ()
    return pool.best(keep, typeable)


def _token_gradient(
    searched: EncoderView, presence: Presence, typeable: Typeable, row: Sequence[int]
) -> Tensor:
    """Slope of the loss (places, tokens) as a place turns into each token that can be typed."""
    ids = typeable.ids([row])
    embeddings = searched.table[ids].float().requires_grad_()
    with torch.enable_grad():
        loss = 1 - presence(searched.from_embeddings(ids, embeddings)).sum()
        (slope,) = torch.autograd.grad(loss, embeddings)
    places = slope[0, typeable.start : typeable.start + len(row)]
    return (places.to(searched.table.dtype) @ searched.table.T)[:, typeable.tokens].float()


def _swaps(
    typeable: Typeable,
    row: Sequence[int],
    gradient: Tensor,
    options: GradientOptions,
    generator: torch.Generator,
) -> list[tuple[int, ...]]:
    """Up to `batch` sequences that differ from `row` in one token, all of which can be typed."""
    count = min(options.candidates, gradient.shape[1])
    ranked = typeable.tokens[(-gradient).topk(count, dim=1).indices.cpu()]
    places = torch.randint(len(row), (options.batch,), generator=generator)
    picks = torch.randint(count, (options.batch,), generator=generator)
    swapped = torch.tensor(row).repeat(options.batch, 1)
    swapped[torch.arange(options.batch), places] = ranked[places, picks]
    rows = [tuple(ids) for ids in swapped.tolist()]
    different = [ids for ids in dict.fromkeys(rows) if ids != tuple(row)]
    texts = typeable.texts(different)
    return [ids for ids, text in zip(different, texts, strict=True) if text is not None]
