"""One answer of the images route, checked against the contract; knows HTTP and PNG only."""

import base64
import binascii
import io
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from PIL import Image, ImageChops

__all__ = ["AnswerWrong", "Drawn", "Repeats", "read_answer"]

_STAMPS = ("X-QuickFix-Revision", "X-QuickFix-Digest", "X-Request-Id")
_KEPT_BYTES = 64 * 1024 * 1024


class AnswerWrong(Exception):
    """A 200 answer that breaks the contract."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one image is known by."""

    prompt: str
    seed: int
    revision: int
    digest: str
    image: Image.Image  # RGB


def read_answer(
    prompt: str, seed: int, headers: Mapping[str, str], body: Any, *, size: str = ""
) -> Drawn:
    """The one image of an answer: a PNG of the asked size, whose stamp equals the headers.

    Raises AnswerWrong with what is wrong.
    """
    try:
        (item,) = body["data"]
        told = body["size"]
        file = base64.b64decode(item["b64_json"], validate=True)
        image = Image.open(io.BytesIO(file), formats=["PNG"])
        image.load()
    except (KeyError, TypeError, ValueError, binascii.Error, OSError, SyntaxError) as error:
        raise AnswerWrong(f"no PNG in the answer: {type(error).__name__}") from error
    shown = f"{image.width}x{image.height}"
    if shown != told or shown != (size or told):
        raise AnswerWrong(f"the PNG is {shown}, the answer says {told}, asked was {size or told}")
    text = getattr(image, "text", {})
    for name in _STAMPS:
        in_header, in_file = headers.get(name), text.get(name)
        if in_header is None or in_header != in_file:
            raise AnswerWrong(f"{name} is {in_header!r} in the headers, {in_file!r} in the PNG")
    revision, digest = headers[_STAMPS[0]], headers[_STAMPS[1]]
    if not revision.isdigit():
        raise AnswerWrong(f"the revision is {revision!r}, not a number")
    return Drawn(prompt, seed, int(revision), digest, image.convert("RGB"))


class Repeats:
    """Keeps images, and compares what is drawn again: one seed, prompt and digest, one picture.

    The same seed and prompt under another digest may give another picture, and `told_apart` counts
    where it does. The newest 64 MiB are kept, so that a long run does not grow.
    """

    def __init__(self, *, max_difference: int) -> None:
        """`max_difference` is of one channel of one pixel, of 255."""
        self.compared: Counter[str] = Counter()  # by digest, those with none too
        self.told_apart = 0
        self._max_difference = max_difference
        self._kept: OrderedDict[tuple[str, int, str], Image.Image] = OrderedDict()
        self._digests: dict[int, str] = {}
        self._bytes = 0

    def again(self, random: Random) -> tuple[str, int] | None:
        """Prompt and seed of an image that was drawn before; None while there is none."""
        if not self._kept:
            return None
        prompt, seed, _digest = random.choice(tuple(self._kept))
        return prompt, seed

    def check(self, drawn: Drawn) -> None:
        """Raises AnswerWrong when the same image was different before."""
        if self._digests.setdefault(drawn.revision, drawn.digest) != drawn.digest:
            raise AnswerWrong(f"revision {drawn.revision} has two digests")
        key = drawn.prompt, drawn.seed, drawn.digest
        before = self._kept.get(key)
        if before is None:
            self._tell_apart(drawn)
            self._keep(key, drawn.image)
            return
        self.compared[drawn.digest] += 1
        difference = _difference(before, drawn.image)
        if difference > self._max_difference:
            raise AnswerWrong(
                f"seed {drawn.seed} gave other pixels than before under one digest "
                f"(revision {drawn.revision}): {difference}/255, {self._max_difference}/255 may be"
            )

    def _tell_apart(self, drawn: Drawn) -> None:
        self.compared.setdefault(drawn.digest, 0)
        others = (self._kept.get((drawn.prompt, drawn.seed, digest)) for digest in self.compared)
        self.told_apart += any(
            _difference(other, drawn.image) > self._max_difference
            for other in others
            if other is not None
        )

    def _keep(self, key: tuple[str, int, str], image: Image.Image) -> None:
        self._kept[key] = image
        self._bytes += _bytes_of(image)
        while self._bytes > _KEPT_BYTES:
            _oldest, dropped = self._kept.popitem(last=False)
            self._bytes -= _bytes_of(dropped)

    def __len__(self) -> int:
        return len(self._kept)


def _difference(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of a channel, 0 to 255."""
    if one.size != other.size:
        return 255
    extrema = ImageChops.difference(one, other).getextrema()
    return max(int(high) for _low, high in extrema)  # type: ignore[misc] # pairs, one a channel


def _bytes_of(image: Image.Image) -> int:
    return image.width * image.height * len(image.getbands())
