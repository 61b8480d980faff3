"""Which positions of a caption are keyed, and what each of them weighs.

Behind the subject every position says nearly the same: of the last subject token there is one, of
padding there are up to seventy. So the positions behind are taken at distances 1, 4 and 16, each
weighs as the run of positions up to the next one, and all of them together weigh `pad_weight`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

REACH = 16  # the farthest position behind that is looked at; it stands for all beyond it
_RATIO = 4
# Of the largest eigenvalue: a row of a ten-thousandth of the largest is far below any ridge.
_NEGLIGIBLE = 1e-8


@dataclass(frozen=True)
class PairRows:
    """Keys (n, d_in), steps to the anchor's keys (n, d_in) and ones (n,), times the root of their
    weights.

    Kept in single precision, in which they were captured; every use converts them to double.
    """

    keys: Tensor
    steps: Tensor
    ones: Tensor
    captured: int  # positions of captions that they stand for

    def __len__(self) -> int:
        return len(self.keys)


def pair_rows(keys: Tensor, anchors: Tensor, weights: Tensor, *, merge: bool = True) -> PairRows:
    """The fewest rows with the same second moments as sqrt(w) k and sqrt(w) (k' - k), all (n, .).

    The objective sees the rows through sum w k k^T, sum w (k' - k) k^T and the like, which an
    orthogonal map of the rows leaves as they are; directions in which nothing varies are dropped.
    Without `merge` the rows stay as they are.
    """
    scale = weights.sqrt()[:, None]
    parts: tuple[Tensor, ...] = (scale * keys, scale * (anchors - keys), scale)
    if merge:
        both = torch.cat(parts, dim=1)
        sizes, directions = torch.linalg.eigh(both @ both.T)
        both = directions[:, sizes > _NEGLIGIBLE * sizes[-1]].T @ both
        parts = torch.split(both, [part.shape[1] for part in parts], dim=1)
    keys_, steps, ones = (part.float().contiguous() for part in parts)
    return PairRows(keys_, steps, ones[:, 0], len(keys))


def behind(count: int) -> tuple[list[int], list[float]]:
    """Distances 1, 4, 16 up to `count`, and their shares, which add up to 1."""
    places = []
    place = 1
    while place <= min(count, REACH):
        places.append(place)
        place *= _RATIO
    ends = [*places[1:], count + 1]
    return places, [(end - place) / count for place, end in zip(places, ends, strict=True)]


def caption_rows(
    keys: Tensor, words: int, positions: int, pad_weight: float
) -> tuple[Tensor, Tensor]:
    """The rows of a caption that is to stay: its words, and what stands behind them.

    keys: (positions, d_in), of all positions or as far as REACH behind the words; words: positions
    up to and with end-of-text, start-of-text counted. Answers rows (n, d_in) and weights (n,);
    start-of-text is the same everywhere and left out.
    """
    places, shares = behind(positions - words)
    taken = [*range(1, words), *(words - 1 + place for place in places)]
    weights = [*(1.0,) * (words - 1), *(pad_weight * share for share in shares)]
    return keys[taken], torch.tensor(weights, dtype=torch.float64, device=keys.device)
