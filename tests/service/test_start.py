"""What a start costs before the worker begins to load."""

import subprocess
import sys

from .live import REPOSITORY

PARENT = """
import sys
import service.app
print(*sorted(sys.modules))
"""


def test_bentomls_parent_loads_neither_torch_nor_the_api() -> None:
    """It imports the service for its configuration alone, and waits until it has."""
    run = subprocess.run(
        [sys.executable, "-c", PARENT], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert "service.settings" in loaded
    assert not loaded & {"torch", "diffusers", "transformers", "sqlalchemy", "service.runtime"}
