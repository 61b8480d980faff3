"""One answer of the images route, checked against the contract; knows HTTP and PNG only."""

import base64
import binascii
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

__all__ = ["AnswerWrong", "Drawn", "Repeats", "read_answer"]

_STAMPS = ("X-QuickFix-Revision", "X-QuickFix-Digest", "X-Request-Id")


class AnswerWrong(Exception):
    """A 200 answer that breaks the contract."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one image is known by."""

    prompt: str
    seed: int
    revision: int
    pixels: str  # SHA-256 of mode, size and pixels: the file itself holds the request's id


def read_answer(prompt: str, seed: int, headers: Mapping[str, str], body: Any) -> Drawn:
    """The one image of an answer: PNG opens, and its stamp equals the headers.

    Raises AnswerWrong with what is wrong.
    """
    try:
        (item,) = body["data"]
        file = base64.b64decode(item["b64_json"], validate=True)
        image = Image.open(io.BytesIO(file), formats=["PNG"])
        image.load()
    except (KeyError, TypeError, ValueError, binascii.Error, OSError, SyntaxError) as error:
        raise AnswerWrong(f"no PNG in the answer: {type(error).__name__}") from error
    text = getattr(image, "text", {})
    for name in _STAMPS:
        in_header, in_file = headers.get(name), text.get(name)
        if in_header is None or in_header != in_file:
            raise AnswerWrong(f"{name} is {in_header!r} in the headers, {in_file!r} in the PNG")
    revision = headers[_STAMPS[0]]
    if not revision.isdigit():
        raise AnswerWrong(f"the revision is {revision!r}, not a number")
    content = f"{image.mode} {image.size}".encode() + image.tobytes()
    return Drawn(prompt, seed, int(revision), hashlib.sha256(content).hexdigest())


class Repeats:
    """Remembers every image: one seed, prompt and revision must always give the same pixels."""

    def __init__(self) -> None:
        self._pixels: dict[tuple[str, int, int], str] = {}

    def check(self, drawn: Drawn) -> None:
        """Raises AnswerWrong when the same image was different before."""
        key = drawn.prompt, drawn.seed, drawn.revision
        if self._pixels.setdefault(key, drawn.pixels) != drawn.pixels:
            raise AnswerWrong(
                f"seed {drawn.seed} gave other pixels than before under revision {drawn.revision}"
            )

    def __len__(self) -> int:
        return len(self._pixels)
