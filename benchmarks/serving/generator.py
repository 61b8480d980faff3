"""The load generator: a process of its own that asks, times, and checks every image.

    python -m benchmarks.serving.generator SPEC RESULT

SPEC is JSON: `url`, `requests` (each with `body` and the index of its `reference`, or null),
`references` (an .npz file with `images`, or null), and either `clients` (closed loop: so many ask
one request after the other) or `at` (open loop: the seconds at which each is to be sent, whatever
became of those before). RESULT is written when all are answered. Loads no torch: two cores are
measured, and the generator must not be what is measured; it says what it used itself.
"""

import asyncio
import io
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

__all__ = ["main"]

TIMEOUT_SECONDS = 900.0
_NOT_ANSWERED = 0  # in place of a status


class Generator:
    """Sends the requests of one spec."""

    def __init__(self, spec: dict[str, Any], client: httpx.AsyncClient) -> None:
        self._client = client
        self._requests = spec["requests"]
        references = spec["references"]
        self._references = None if references is None else np.load(references)["images"]
        self._started = 0.0
        self.answers: list[dict[str, Any]] = []

    async def closed_loop(self, clients: int) -> None:
        """Each client asks again when it has its answer, until nothing is left to ask."""
        self._started = time.perf_counter()
        left = iter(self._requests)
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._ask_in_turn(left))

    async def open_loop(self, at: list[float]) -> None:
        """Each request is sent at its time."""
        self._started = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for request, moment in zip(self._requests, at, strict=True):
                await asyncio.sleep(moment - self._now())
                group.create_task(self._ask(request, intended=moment))

    async def _ask_in_turn(self, left: Iterator[dict[str, Any]]) -> None:
        for request in left:
            await self._ask(request, intended=self._now())

    async def _ask(self, request: dict[str, Any], *, intended: float) -> None:
        answer: dict[str, Any] = {"intended": intended, "sent": self._now()}
        self.answers.append(answer)
        try:
            response = await self._client.post("/generate", json=request["body"])
        except httpx.HTTPError as error:
            answer |= {"done": self._now(), "status": _NOT_ANSWERED, "wrong": repr(error)}
            return
        answer |= {"done": self._now(), "status": response.status_code, "wrong": None}
        if response.status_code != httpx.codes.OK:
            answer["wrong"] = response.text[:200]
            return
        try:
            answer["difference"] = self._difference(response.content, request["reference"])
        except (OSError, ValueError) as error:
            answer["wrong"] = repr(error)

    def _difference(self, file: bytes, reference: int | None) -> int | None:
        """Largest difference of a channel from the reference. Raises OSError, ValueError."""
        image = np.asarray(Image.open(io.BytesIO(file), formats=["PNG"]).convert("RGB"))
        if reference is None or self._references is None:
            return None
        expected = self._references[reference].astype(np.int16)
        if image.shape != expected.shape:
            raise ValueError(f"the image is {image.shape}, not {expected.shape}")
        return int(np.abs(image.astype(np.int16) - expected).max())

    def _now(self) -> float:
        return time.perf_counter() - self._started


async def generate(spec: dict[str, Any]) -> dict[str, Any]:
    """Send all of it; the answers in the order in which they were sent, and what that cost."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(
        base_url=spec["url"], timeout=TIMEOUT_SECONDS, limits=limits
    ) as client:
        generator = Generator(spec, client)
        used, started = time.process_time(), time.perf_counter()
        if spec["at"] is None:
            await generator.closed_loop(spec["clients"])
        else:
            await generator.open_loop(spec["at"])
        return {
            "answers": generator.answers,
            "cpu_seconds": time.process_time() - used,
            "wall_seconds": time.perf_counter() - started,
        }


def main() -> None:
    """Read SPEC, send, write RESULT."""
    spec, result = map(Path, sys.argv[1:])
    found = asyncio.run(generate(json.loads(spec.read_text("utf-8"))))
    result.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
