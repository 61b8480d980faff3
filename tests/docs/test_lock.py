"""Lock files are what is installed, name no index, and hold everything that is imported."""

import ast
import runpy
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
# diffusers loads weights through the one, torch writes graphs through the other; of the third only
# the table of look-alikes is read.
NOT_IMPORTED = {"accelerate", "onnx", "confusable-homoglyphs"}
OF_AN_EXTRA = {"ray"}  # `pip install quickfix[ray]`; without it the executor says so


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def imports(*rooms: str) -> set[str]:
    """Top-level names that modules of these rooms import."""
    found: set[str] = set()
    for path in (file for room in rooms for file in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names - {"edits", "service", "training"}


def test_lock_files_are_what_is_installed() -> None:
    run = subprocess.run(
        [sys.executable, "tools/lock.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("package", "need", "is_of_a_build"),
    [
        ("torch", 'nvidia-cudnn-cu13==9.20.0.48; platform_system == "Linux"', True),
        ("torch", 'triton==3.7.1; platform_system == "Linux" and python_version < "3.15"', True),
        ("torch", "sympy>=1.13.3", False),
        ("torch", 'optree>=0.13.0; extra == "optree"', False),
        ("bentoml", 'nvidia-ml-py; platform_system == "Linux"', False),
    ],
)
def test_the_lock_is_the_same_for_torchs_cpu_and_cuda_builds(
    package: str, need: str, is_of_a_build: bool
) -> None:
    of_a_build = runpy.run_path(str(ROOT / "tools/lock.py"))["brought_by_build"]
    assert of_a_build(package, Requirement(need)) is is_of_a_build


def test_what_serves_is_part_of_the_whole_and_has_no_tools() -> None:
    whole, serving = pins("requirements.lock"), pins("requirements-serve.lock")
    assert serving.items() <= whole.items()
    assert not {"pytest", "mypy", "ruff", "locust"} & set(serving)
    assert not {"pip", "setuptools", "wheel"} & set(whole)


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-serve.lock"])
def test_locks_are_sorted_pin_public_versions_and_name_no_index(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert list(pins(name)) == sorted(pins(name))
    assert "+" not in text
    assert "://" not in text and "--" not in text


def test_everything_that_serves_is_locked_not_only_installed() -> None:
    """An import that only a development tool brings works here and fails in the image."""
    distributions = packages_distributions()
    locked = set(pins("requirements-serve.lock"))
    for module in imports("service", "edits") - OF_AN_EXTRA:
        names = {canonicalize_name(name) for name in distributions.get(module, ())}
        assert names & locked, f"{module} is imported and not in requirements-serve.lock"


def test_nothing_is_locked_for_the_image_that_serving_does_not_import() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    distributions = packages_distributions()
    used = {
        canonicalize_name(name)
        for module in imports("service", "edits")
        for name in distributions.get(module, ())
    }
    assert wanted - used == NOT_IMPORTED
