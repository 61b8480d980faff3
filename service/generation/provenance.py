"""The stamp of every image: which revision it was drawn under, in headers and in the file."""

import io
from typing import Literal

from PIL.Image import Image
from PIL.PngImagePlugin import PngInfo

from service.generation.job import Began
from service.generation.request import Generated

__all__ = ["ImageFormat", "encode_image", "stamp"]

ImageFormat = Literal["png", "jpeg", "webp"]


def stamp(drawn: Generated | Began, request_id: str) -> dict[str, str]:
    """The response headers; the text chunks of a PNG carry the same names and values."""
    return {
        "X-QuickFix-Revision": str(drawn.revision),
        "X-QuickFix-Digest": drawn.digest,
        "X-Request-Id": request_id,
    }


def encode_image(image: Image, kind: ImageFormat, text: dict[str, str]) -> bytes:
    """The image as a file; `text` becomes tEXt chunks of a PNG, the others have no such place."""
    buffer = io.BytesIO()
    if kind == "png":
        chunks = PngInfo()
        for key, value in text.items():
            chunks.add_text(key, value)
        image.save(buffer, "PNG", pnginfo=chunks)
    elif kind == "jpeg":
        image.convert("RGB").save(buffer, "JPEG", quality=95)
    else:
        image.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()
