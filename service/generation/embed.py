"""What the UNet is told of a request: embeddings under its policy, computed at most once."""

import time
from collections import OrderedDict

import torch
from torch import Tensor

from service import metrics
from service.generation.encoder import PromptEncoder
from service.generation.request import GenerationRequest
from service.snapshot import ActiveSnapshot

__all__ = ["Embedder", "EmbeddingCache"]


class EmbeddingCache:
    """The embeddings used last, by the policy's digest and the prompt, within a bound of bytes.

    The digest decides the encoder's weights, so nothing has to be dropped when a revision changes.
    One thread owns it.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._held: OrderedDict[tuple[str, str], Tensor] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """Bytes of all embeddings held."""
        return self._bytes

    def get(self, policy_digest: str, prompt: str) -> Tensor | None:
        """What `put` was given for the same two, if it is still held."""
        key = (policy_digest, prompt)
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key]

    def put(self, policy_digest: str, prompt: str, embedding: Tensor) -> None:
        """Hold an embedding, and let go of those that were used longest ago."""
        key = (policy_digest, prompt)
        if key in self._held or embedding.nbytes > self._max_bytes:
            return
        self._held[key] = embedding
        self._bytes += embedding.nbytes
        while self._bytes > self._max_bytes:
            _, dropped = self._held.popitem(last=False)
            self._bytes -= dropped.nbytes


class Embedder:
    """Encodes requests under their policy's encoder. One thread owns it."""

    def __init__(self, prompts: PromptEncoder, *, cache_bytes: int) -> None:
        self._prompts = prompts
        self._cache = EmbeddingCache(cache_bytes)

    def embeddings(self, snapshot: ActiveSnapshot, request: GenerationRequest) -> Tensor:
        """Shape (branches, positions, features): with guidance the negative prompt's come first."""
        started = time.perf_counter()
        texts = [request.prompt]
        if request.guidance_scale > 1:
            texts.insert(0, request.negative_prompt)
        rows = [self._one(snapshot, request.policy, text) for text in texts]
        metrics.ENCODE_SECONDS.observe(time.perf_counter() - started)
        return torch.cat(rows)

    def _one(self, snapshot: ActiveSnapshot, policy: str, text: str) -> Tensor:
        digest = snapshot.policy_digests[policy]
        embedding = self._cache.get(digest, text)
        metrics.ENCODE_CACHE.labels("miss" if embedding is None else "hit").inc()
        if embedding is None:
            embedding = self._prompts.encode(snapshot.encoders[policy], text)
            self._cache.put(digest, text, embedding)
        return embedding
