"""The plain peer: one pipeline behind a lock, one request after the other.

bentoml serve benchmarks.serving.peers.plain:Plain --arg threads=2
"""

import threading
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from benchmarks.serving.peers.pipeline import TIMEOUT_SECONDS, Arguments, Asked, draw, load, png

_arguments = bentoml.use_arguments(Arguments)


# One thread, BentoML's default: each of several would keep a team of OpenMP threads of its own.
@bentoml.service(
    name="plain", workers=_arguments.workers, threads=1, traffic={"timeout": TIMEOUT_SECONDS}
)
class Plain:
    """Draws one image at a time."""

    def __init__(self) -> None:
        self._pipeline = load(_arguments)
        self._lock = threading.Lock()

    @bentoml.api
    def generate(
        self, prompt: str, seed: int = 0, steps: int = 20, guidance_scale: float = 3.0
    ) -> Annotated[bytes, ContentType("image/png")]:
        """JSON in, one PNG out."""
        asked = Asked(prompt=prompt, seed=seed, steps=steps, guidance_scale=guidance_scale)
        with self._lock:
            (image,) = draw(self._pipeline, [asked])
        return png(image)
