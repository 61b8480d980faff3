"""The bento holds only what serves, and serves from its own files wherever it lies."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import packages_distributions
from io import BytesIO
from pathlib import Path

import httpx
import pytest
import yaml
from packaging.utils import canonicalize_name
from PIL import Image

from tools.k8s.contract import IMAGE_USER

from .conftest import REPOSITORY, Bento, environment

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

START_SECONDS = 600.0  # a test machine that does much else at the same time
LARGEST = 32 * 2**20  # the demo model's weights are 22 MiB of it
FOLDERS = {"edits", "models", "service"}
FILES = {"bentofile.yaml", "pyproject.toml", "requirements-serve.lock"}

# Runs in every process of the server before anything else. Packages that only this environment has
# are not there, neither for an import nor for a library that looks whether it may; and what was
# imported is written down again and again, because the worker ends without a last word.
WITNESS = """
import json, os, sys, threading, time

folder = os.environ["WITNESS"]
with open(os.path.join(folder, "refused")) as file:
    refused = frozenset(file.read().split())

class Locked:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *rest):
        top = name.partition(".")[0]
        return None if top in refused else self.finder.find_spec(name, *rest)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Locked(finder) for finder in sys.meta_path]

def watch():
    path = os.path.join(folder, f"{os.getpid()}.json")
    while True:
        time.sleep(1)
        modules = {n: getattr(m, "__file__", None) for n, m in list(sys.modules.items())}
        seen = {"program": sys.argv[0], "files": {n: f for n, f in modules.items() if f}}
        with open(path + ".new", "w") as file:
            json.dump(seen, file)
        os.replace(path + ".new", path)

threading.Thread(target=watch, daemon=True).start()
"""


def not_locked() -> set[str]:
    """Modules that are installed here, and in the image are not."""
    locked = {line.partition("==")[0] for line in pins(REPOSITORY / "requirements-serve.lock")}
    return {
        module
        for module, names in packages_distributions().items()
        if not locked & {canonicalize_name(name) for name in names}
    } - {"edits", "service"}


def files(bento: Bento) -> list[Path]:
    return sorted(p.relative_to(bento.source) for p in bento.source.rglob("*") if p.is_file())


def pins(path: Path) -> set[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {line for line in lines if not line.startswith("#")}


def test_it_holds_what_serves_and_nothing_else(bento: Bento) -> None:
    assert {path.parts[0] for path in files(bento)} == FOLDERS | FILES
    names = {path.name for path in files(bento)}
    assert {"app.py", "quickfix.json", "remove-pistol.yaml", "v0002_fleets.py"} <= names
    for path in files(bento):
        assert path.suffix not in {".pyc", ".md", ".ipynb"} or path == Path("models/demo/README.md")
        assert not {"tests", "benchmarks", "training", ".git", "__pycache__"} & set(path.parts)


def test_it_holds_every_file_of_the_packages_as_it_is_here(bento: Bento) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *FOLDERS],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    ).stdout.decode()
    tracked = {Path(name) for name in listed.split("\0") if name}
    packed = {path for path in files(bento) if path.parts[0] in FOLDERS}
    assert packed == {path for path in tracked if (REPOSITORY / path).is_file()}
    for path in packed:
        assert (bento.source / path).read_bytes() == (REPOSITORY / path).read_bytes()


def test_it_is_small(bento: Bento) -> None:
    size = sum(path.stat().st_size for path in bento.folder.rglob("*") if path.is_file())
    assert 2**20 < size < LARGEST


def test_its_image_pins_python_and_every_package_and_runs_as_nobody_special(bento: Bento) -> None:
    dockerfile = (bento.folder / "env" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^FROM python:3\.11\.\d+-slim-bookworm ", dockerfile, re.MULTILINE)
    assert f"ARG BENTO_USER_UID={IMAGE_USER}\n" in dockerfile
    assert f"ARG BENTO_USER_GID={IMAGE_USER}\n" in dockerfile
    *_, user = re.findall(r"^USER (\S+)$", dockerfile, re.MULTILINE)
    assert user == "bentoml"
    assert "ENV BENTO_PATH=$BENTO_PATH" in dockerfile
    assert "uv venv --python 3.11 /app/.venv" in dockerfile
    installed = pins(bento.folder / "env" / "python" / "requirements.txt")
    assert installed == pins(REPOSITORY / "requirements-serve.lock")
    assert len(installed) > 50
    assert all(re.fullmatch(r"[a-z0-9.-]+==\S+", line) for line in installed)


def test_its_processes_run_on_jemalloc_which_it_installs(bento: Bento) -> None:
    dockerfile = (bento.folder / "env" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"apt-get install .*\blibjemalloc2\b", dockerfile)
    assert "ARG LD_PRELOAD=libjemalloc.so.2\nENV LD_PRELOAD=$LD_PRELOAD\n" in dockerfile


def test_the_migration_job_names_the_folder_where_the_image_has_the_sources(bento: Bento) -> None:
    dockerfile = (bento.folder / "env" / "docker" / "Dockerfile").read_text(encoding="utf-8")
    (path,) = re.findall(r"^ARG BENTO_PATH=(\S+)$", dockerfile, re.MULTILINE)
    job = REPOSITORY / "k8s" / "components" / "postgresql" / "migration.yaml"
    pod = yaml.safe_load(job.read_text(encoding="utf-8"))["spec"]["template"]["spec"]
    assert pod["containers"][0]["workingDir"] == f"{path}/src"


def test_the_jobs_command_runs_from_the_sources_alone(bento: Bento, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"sqlite:///{tmp_path}/quickfix.db\n", encoding="utf-8")
    command = [sys.executable, "-m", "edits.cli", "migrate", "--json"]
    run = subprocess.run(
        [*command, "--store-file", str(tmp_path / "url")],
        cwd=bento.source,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {"schema": "0003", "granted_to": None}


@contextmanager
def served(bento: Bento, folder: Path) -> Iterator[str]:
    """`bentoml serve TAG` from an empty folder, with a witness in its process; stopped softly."""
    empty, witness, probe = folder / "empty", folder / "witness", folder / "probe"
    for place in (empty, witness, probe):
        place.mkdir()
    (probe / "sitecustomize.py").write_text(WITNESS, encoding="utf-8")
    (witness / "refused").write_text(" ".join(sorted(not_locked())), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"QUICKFIX_STATE_DIR": str(folder / "state"), "QUICKFIX_DEVICE": "cpu"}
    variables |= {"QUICKFIX_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bentoml", "serve", bento.tag]
    log = folder / "service.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=empty,
            env=environment(bento.home, PYTHONPATH=str(probe), WITNESS=str(witness), **variables),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            with suppress(httpx.HTTPError):
                if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                    break
            time.sleep(0.2)
        else:
            pytest.fail(f"not ready: {log.read_text(encoding='utf-8')[-4000:]}")
        yield url
        assert list(empty.iterdir()) == [], "nothing is written where it was started"
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        finally:
            if process.poll() is None:
                process.kill()


Drawn = tuple[httpx.Response, dict[str, Path]]


@pytest.fixture(scope="module")
def drawn(bento: Bento, tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """An image over HTTP, and the modules of the worker that drew it with their files."""
    folder = tmp_path_factory.mktemp("served")
    with served(bento, folder) as url:
        body = {"prompt": "a photo of a cat", "seed": 1, "steps": 4}
        answer = httpx.post(f"{url}/generate", json=body, timeout=120)
        time.sleep(3)  # the witness looks once a second
    seen = [json.loads(path.read_text()) for path in (folder / "witness").glob("*.json")]
    (worker,) = (one for one in seen if one["program"].endswith("_bentoml_impl/worker/service.py"))
    return answer, {name: Path(file) for name, file in worker["files"].items()}


def test_the_built_bento_draws(drawn: Drawn) -> None:
    answer, _ = drawn
    assert answer.status_code == 200, answer.text
    image = Image.open(BytesIO(answer.content))
    image.load()
    assert (image.format, image.size) == ("PNG", (64, 64))
    assert len(set(image.convert("L").tobytes())) > 8, "a picture, not a flat square"
    assert int(answer.headers["X-QuickFix-Revision"]) >= 1
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", answer.headers["X-QuickFix-Digest"])
    assert image.info["X-QuickFix-Digest"] == answer.headers["X-QuickFix-Digest"]


def test_it_ran_its_own_files_and_none_of_a_checkout(bento: Bento, drawn: Drawn) -> None:
    _, modules = drawn
    ours = {n: f for n, f in modules.items() if n.partition(".")[0] in {"service", "edits"}}
    assert {"service.app", "service.runtime", "edits.method.solver"} <= set(ours)
    for name, file in ours.items():
        assert file.is_relative_to(bento.source), f"{name} came from {file}"


def test_the_locked_packages_are_enough(drawn: Drawn) -> None:
    """It drew without any package that only a development environment has."""
    answer, modules = drawn
    assert answer.status_code == 200
    refused = not_locked()
    assert {"pytest", "mypy", "scipy", "setuptools"} <= refused
    tops = {name.partition(".")[0] for name in modules}
    assert "torch" in tops
    # A .pth file of setuptools runs before anything can be refused.
    assert tops & refused <= {"_distutils_hack"}
