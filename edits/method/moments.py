"""Sums over many edits that do not start again when one edit joins or leaves.

The items are dealt into buckets by a hash of their names. A bucket's sum is kept for its members;
the whole is the sum over the buckets in their order. So the sum depends on the items alone, not on
the order in which they came and went, and one change costs one bucket.
"""

import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from edits.method.rows import PairRows

BUCKETS = 16
# Of each kind: those of one set, and what four changes of it replaced, to go back to. Each takes
# up to 9 MiB at the size of Stable Diffusion 1.x.
_REMEMBERED = BUCKETS + 4
_KINDS = 4  # edits and preserved names of two sources, as the encoders of SDXL are


class BucketedSums:
    """Sums of a tuple of tensors over named items, kept by kind and bucket. Thread-safe.

    The kinds used last are kept, and of each its buckets used last: no kind drops another's.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, OrderedDict[Hashable, tuple[Tensor, ...]]] = OrderedDict()
        self._lock = threading.RLock()

    def total(
        self,
        kind: Hashable,
        items: Mapping[str, Hashable],
        moments: Callable[[Sequence[str]], tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...]:
        """The sum over all items; `moments` answers the sum over the names that it is given.

        `items` maps each name to what decides its summand. Raises ValueError for no items.
        """
        if not items:
            raise ValueError("a sum over no items has no shape")
        buckets: dict[int, list[str]] = {}
        for name in sorted(items):
            buckets.setdefault(zlib.crc32(name.encode()) % BUCKETS, []).append(name)
        total: list[Tensor] = []
        with self._lock:
            kept = self._kept.setdefault(kind, OrderedDict())
            _refresh(self._kept, kind, _KINDS)
            for bucket in sorted(buckets):
                names = buckets[bucket]
                identity = (bucket, tuple((name, items[name]) for name in names))
                if identity not in kept:
                    kept[identity] = moments(names)
                part = kept[identity]
                _refresh(kept, identity, _REMEMBERED)
                if total:
                    total = [whole.add_(more) for whole, more in zip(total, part, strict=True)]
                else:
                    total = [tensor.clone() for tensor in part]
        return tuple(total)


def _refresh(kept: OrderedDict[Hashable, Any], newest: Hashable, most: int) -> None:
    kept.move_to_end(newest)
    if len(kept) > most:
        kept.popitem(last=False)


def scaled(rows: Sequence[PairRows], ridges: Sequence[float]) -> tuple[Tensor, Tensor]:
    """All keys and all steps (n, d_in) in double precision, an edit's weights over its ridge."""
    keys = torch.cat([r.keys.double() / ridge**0.5 for r, ridge in zip(rows, ridges, strict=True)])
    steps = torch.cat(
        [r.steps.double() / ridge**0.5 for r, ridge in zip(rows, ridges, strict=True)]
    )
    return keys, steps


def pair_moments(rows: Sequence[PairRows], ridges: Sequence[float]) -> tuple[Tensor, Tensor]:
    """sum w k k^T and sum w (k' - k) k^T, each (d_in, d_in); an edit's weights over its ridge."""
    keys, steps = scaled(rows, ridges)
    return second_moment(keys), steps.T @ keys


def second_moment(rows: Tensor) -> Tensor:
    """sum_i k_i k_i^T (d_in, d_in) of the rows (n, d_in)."""
    half = rows.shape[1] // 2
    left, right = rows[:, :half], rows[:, half:]
    moment = rows.new_empty(rows.shape[1], rows.shape[1])
    torch.mm(left.T, left, out=moment[:half, :half])
    torch.mm(left.T, right, out=moment[:half, half:])
    torch.mm(right.T, right, out=moment[half:, half:])
    moment[half:, :half] = moment[:half, half:].T  # symmetric: a quarter need not be multiplied
    return moment
