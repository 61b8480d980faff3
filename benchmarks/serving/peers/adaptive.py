"""The adaptive peer: BentoML's adaptive batching in front of one pipeline.

    bentoml serve benchmarks.serving.peers.adaptive:Adaptive --arg max_batch_size=16

As BentoML's page on adaptive batching has it: several parameters are wrapped in a model, a
batchable method takes a list of them, and a second service takes the single requests. A call of the
pipeline has one number of steps and one guidance, so a batch is drawn group by group.
"""

from collections import defaultdict
from typing import Annotated

import bentoml
from aiohttp import ClientConnectionError
from bentoml.validators import ContentType

from benchmarks.serving.peers.pipeline import TIMEOUT_SECONDS, Arguments, Asked, draw, load, png

_arguments = bentoml.use_arguments(Arguments)
ATTEMPTS = 3


@bentoml.service(name="batches", workers=1, traffic={"timeout": TIMEOUT_SECONDS})
class Batches:
    """Draws what BentoML has gathered."""

    def __init__(self) -> None:
        self._pipeline = load(_arguments)

    @bentoml.api(
        batchable=True,
        max_batch_size=_arguments.max_batch_size,
        max_latency_ms=_arguments.max_latency_ms,
    )
    def draw(self, batch: list[Asked]) -> list[bytes]:
        """PNG files, in the order of the batch."""
        groups: dict[tuple[int, float], list[int]] = defaultdict(list)
        for place, asked in enumerate(batch):
            groups[asked.steps, asked.guidance_scale].append(place)
        files = [b""] * len(batch)
        for places in groups.values():
            images = draw(self._pipeline, [batch[place] for place in places])
            for place, image in zip(places, images, strict=True):
                files[place] = png(image)
        return files


@bentoml.service(name="adaptive", workers=1, traffic={"timeout": TIMEOUT_SECONDS})
class Adaptive:
    """Takes single requests."""

    batches = bentoml.depends(Batches)

    @bentoml.api
    async def generate(
        self, prompt: str, seed: int = 0, steps: int = 20, guidance_scale: float = 3.0
    ) -> Annotated[bytes, ContentType("image/png")]:
        """JSON in, one PNG out."""
        asked = Asked(prompt=prompt, seed=seed, steps=steps, guidance_scale=guidance_scale)
        for attempt in range(ATTEMPTS):
            try:
                (file,) = await self.batches.to_async.draw([asked])
                break
            except ClientConnectionError:  # the connection was idle and has just been closed
                if attempt == ATTEMPTS - 1:
                    raise
        return bytes(file)
