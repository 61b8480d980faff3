"""What a test does without one of Debian's packages (tools/debian.py)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tools.debian import NotToBeHad

__all__ = ["packages"]


@contextmanager
def packages() -> Iterator[None]:
    """Where one is not to be had meanwhile: skips the test with the reason, and fails it in CI."""
    try:
        yield
    except NotToBeHad as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
