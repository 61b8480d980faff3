"""Answers of the service as pixels."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image


def picture(file: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(file))
    image.load()
    return image


def pixels(answer: Any) -> np.ndarray:
    """Pixels of a PNG answer."""
    assert answer.status_code == 200, answer.text
    return np.asarray(picture(answer.content)).astype(int)


def pictures(answer: Any) -> list[Image.Image]:
    """Images of an OpenAI-style answer."""
    assert answer.status_code == 200, answer.text
    return [picture(base64.b64decode(item["b64_json"])) for item in answer.json()["data"]]
