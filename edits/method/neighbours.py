"""Names close to a concept, found by the encoder itself: what an edit is most likely to harm."""

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import compress

import torch
from torch import Tensor
from torch.nn import functional

from edits.method.captions import fill, naming
from edits.method.components import Components
from edits.method.keys import KeyCache
from edits.method.rows import PairRows
from edits.method.sites import Site
from edits.method.solver import respond
from edits.method.spec import EditSpec

_BATCH = 64
_WHOLE_ROWS = 4  # a row's bits do not depend on its neighbours in batches of a multiple of this
_REMEMBERED = 8192


class Neighbours:
    """A pool of names by the final embedding of the model's first text encoder. Thread-safe."""

    def __init__(self, components: Components, pool: Sequence[str]) -> None:
        self.pool = tuple(pool)
        name, encoder = next(iter(components.encoders.items()))
        self._module = components.twin(name)
        self._tokenizer = encoder.tokenizer
        self._known: OrderedDict[str, Tensor] = OrderedDict()
        self._pool_embeddings: Tensor | None = None
        self._lock = threading.RLock()

    def nearest(self, specs: Sequence[EditSpec]) -> Mapping[EditSpec, tuple[str, ...]]:
        """For each edit the `spec.neighbours` names of the pool nearest to it, nearest first.

        Names in which the concept, an alias or the anchor stands are left out: the first are
        removed, and the last is where the concept goes. Raises ConceptUntraceable.
        """
        wanted = [spec for spec in specs if self.pool and spec.neighbours]
        if not wanted:
            return dict.fromkeys(specs, ())
        concepts = self.embed([spec.concept for spec in wanted])
        pool = self.warm()
        # All texts of a CLIP encoder lie in one narrow cone: their mean says nothing.
        mean = pool.mean(0)
        directions = functional.normalize(pool - mean, dim=-1)
        similarity = functional.normalize(concepts - mean, dim=-1) @ directions.T
        orders = similarity.argsort(dim=-1, descending=True, stable=True)
        found = dict.fromkeys(specs, ())
        for spec, order in zip(wanted, orders, strict=True):
            candidates = [self.pool[i] for i in order[: 2 * spec.neighbours].tolist()]
            excluded = set(naming(candidates, (*spec.names, spec.anchor)))
            kept = [name for name in candidates if name not in excluded]
            found[spec] = tuple(kept[: spec.neighbours])
        return found

    def warm(self) -> Tensor:
        """The embeddings of the pool (names, width)."""
        with self._lock:
            if self._pool_embeddings is None:
                self._pool_embeddings = self.embed(self.pool)
            return self._pool_embeddings

    def recall(self, embeddings: Tensor) -> None:
        """Take over what `warm` answered earlier."""
        with self._lock:
            self._known |= dict(zip(self.pool, embeddings, strict=True))
            self._pool_embeddings = embeddings

    def embed(self, names: Sequence[str]) -> Tensor:
        """Final hidden states at end-of-text of the bare names (names, width), float64."""
        with self._lock:
            missing = [n for n in dict.fromkeys(names) if n not in self._known]
            tokens = self._tokenizer([fill("{x}", name) for name in missing])
            by_length: dict[int, list[tuple[str, tuple[int, ...]]]] = {}
            for name, token in zip(missing, tokens, strict=True):
                by_length.setdefault(len(token.ids), []).append((name, token.ids))
            fresh: dict[str, Tensor] = {}
            for same in by_length.values():
                for start in range(0, len(same), _BATCH):
                    fresh |= self._embed_batch(same[start : start + _BATCH])
            known = {name: fresh.get(name, self._known.get(name)) for name in names}
            self._known |= fresh
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return torch.stack([vector for name in names if (vector := known[name]) is not None])

    @torch.no_grad()
    def _embed_batch(self, batch: Sequence[tuple[str, tuple[int, ...]]]) -> dict[str, Tensor]:
        # Causal: what stands behind end-of-text does not reach it, so nothing is padded.
        rows = [ids for _, ids in batch]
        while len(rows) * len(rows[0]) % _WHOLE_ROWS:
            rows.append(rows[0])
        device = next(self._module.parameters()).device
        hidden = self._module(torch.tensor(rows, device=device)).last_hidden_state
        return {name: hidden[i, -1].double() for i, (name, _) in enumerate(batch)}


def moved(
    names: Sequence[str], source: Site, rows: PairRows, ridge: float, keys: KeyCache
) -> tuple[str, ...]:
    """Those of `names` that the edit alone, preserving nothing, moves more than their mean."""
    if not names:
        return ()
    # Only compared with each other: single precision is enough, and a third of the time.
    responses, steps = respond(rows.keys.double(), ridge=ridge).float(), rows.steps
    held = [keys.preserved(source, name, field="ordinary_captions").float() for name in names]
    own = torch.cat(held)
    moves = (own @ responses.T) @ steps
    of = torch.repeat_interleave(torch.tensor([len(rows) for rows in held], device=own.device))
    squares = torch.stack([own.square().sum(1), moves.square().sum(1)])
    sizes, moved_by = squares.new_zeros(2, len(names)).index_add_(1, of, squares)
    drifts = (moved_by / sizes).sqrt()
    return tuple(compress(names, (drifts > drifts.mean()).tolist()))
