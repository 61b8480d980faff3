"""Write requirements.lock and requirements-serve.lock from what is installed here.

`requirements.lock` pins what every extra of pyproject.toml needs, `requirements-serve.lock` what
`dependencies` alone needs: the bento installs the latter. Versions come from the installed
environment, so install and test first, then run this. `--check` writes nothing and exits 1 when
a file is not what it would be. No index is asked and none is recorded.
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
INSTALLERS = {"pip", "setuptools", "wheel"}
HEADER = """\
# Made by tools/lock.py on CPython 3.11, Linux; {what}.
# torch's build (CPU or CUDA) is the choice of the index that it is installed from, and so are the
# libraries that only that build needs.
"""


def brought_by_build(name: str, need: Requirement) -> bool:
    """Whether a need of package `name` is of one of torch's builds: CUDA's libraries and Triton.

    PyPI's build for Linux asks for them, that for CPUs does not, and the lock is of both.
    """
    return name == "torch" and "platform_system" in str(need.marker or "")


def closure(roots: list[str]) -> dict[str, str]:
    """Name -> installed version of the roots and all they need; the build suffix is left out.

    Raises LookupError for a requirement that is missing or has another version.
    """
    pins: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(root) for root in roots]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        try:
            found = distribution(name)
        except PackageNotFoundError:
            raise LookupError(f"{requirement} is not installed") from None
        public = found.version.partition("+")[0]
        if not requirement.specifier.contains(public, prereleases=True):
            raise LookupError(f"{requirement} is asked for, {found.version} is installed")
        pins[name] = public
        for extra in {"", *requirement.extras} - {e for n, e in seen if n == name}:
            seen.add((name, extra))
            wanted = (Requirement(text) for text in found.requires or ())
            todo += [
                need
                for need in wanted
                if not brought_by_build(name, need)
                and (not need.marker or need.marker.evaluate({"extra": extra}))
            ]
    return {name: version for name, version in pins.items() if name not in INSTALLERS}


def render(what: str, pins: dict[str, str]) -> str:
    """A requirements file, sorted by name."""
    lines = [f"{name}=={version}\n" for name, version in sorted(pins.items())]
    return HEADER.format(what=what) + "".join(lines)


def locks() -> dict[str, str]:
    """File name -> text that it should have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    serving: list[str] = project["dependencies"]
    extras = [need for extra in project["optional-dependencies"].values() for need in extra]
    return {
        "requirements.lock": render("every extra", closure(serving + extras)),
        "requirements-serve.lock": render("what serves", closure(serving)),
    }


def main(arguments: list[str]) -> int:
    """Write or check both files; 0 when they are right afterwards."""
    code = 0
    for name, text in locks().items():
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if "--check" in arguments:
            sys.stderr.write(f"{name} is not what is installed: run tools/lock.py\n")
            code = 1
        else:
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {name}\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
