"""The bento, built once as `bentoml build` builds it, into a store of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Bento:
    """A built bento: its store, its tag, its folder."""

    home: Path
    tag: str

    @property
    def folder(self) -> Path:
        name, _, version = self.tag.partition(":")
        return self.home / "bentos" / name / version

    @property
    def source(self) -> Path:
        return self.folder / "src"


def environment(home: Path, **variables: str) -> dict[str, str]:
    """What a shell on another machine has: nothing of this checkout and nothing of ours."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    ours = {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", "HOME": str(home)}
    ours["PYTHONDONTWRITEBYTECODE"] = "1"  # what is served must stay what was built
    return {**kept, **ours, **variables}


@pytest.fixture(scope="session")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bento]:
    home = tmp_path_factory.mktemp("bento") / "home"
    home.mkdir()
    run = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "--output", "tag", "."],
        cwd=REPOSITORY,
        env=environment(home, PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (tag,) = [
        line.removeprefix("__tag__:")
        for line in run.stdout.splitlines()
        if line.startswith("__tag__:")
    ]
    yield Bento(home, tag)
