"""A real Prometheus: the installed one, or Debian's package unpacked into a cache without root.

On a machine that has neither Prometheus nor apt the tests that need it are skipped and say so; in
CI (`CI=true`) that is an error.
"""

import functools
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import yaml

from tools.debian import unpacked

from .debian import packages

SCRAPE_SECONDS = 2  # also how long a scrape may take
PATIENCE = 120.0


@functools.cache
def program(name: str) -> str:
    """Path of `prometheus` or `promtool`. Raises NotToBeHad."""
    return shutil.which(name) or str(unpacked("prometheus") / "usr" / "bin" / name)


def required(name: str) -> str:
    """The same for a test: skips it with the reason, but fails in CI."""
    with packages():
        return program(name)


def promtool(*arguments: str) -> str:
    """Run promtool; its output. Raises AssertionError with what it said when it refuses."""
    done = subprocess.run(
        [required("promtool"), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Prometheus:
    """One running server."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=30)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query, now. Raises AssertionError when it is refused."""
        answer = self._client.post("/api/v1/query", data={"query": expression})
        document = answer.json()
        assert document["status"] == "success", (expression, document.get("error"))
        result: list[dict[str, Any]] = document["data"]["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The value of an expression that gives one sample at most."""
        result = self.query(expression)
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        alerts = self._client.get("/api/v1/alerts").json()["data"]["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def rules(self) -> list[dict[str, Any]]:
        """Every loaded rule with its health and last error."""
        groups = self._client.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def wait_until_firing(self, *names: str, patience: float = PATIENCE) -> None:
        """Raises AssertionError when one of the alerts does not fire in time."""
        self.wait(lambda: set(names) <= self.firing(), f"firing: {names}", patience)

    def wait(
        self, condition: Callable[[], bool], what: str = "", patience: float = PATIENCE
    ) -> None:
        """Poll until `condition` holds. Raises AssertionError naming what fires."""
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline, f"not {what}; firing: {sorted(self.firing())}"
            time.sleep(0.3)


@contextmanager
def prometheus(
    folder: Path, targets: Mapping[str, Sequence[str]], rules: dict[str, Any]
) -> Iterator[Prometheus]:
    """Scrape `targets` (host:port by namespace) as the job `quickfix`, each of them once so far."""
    binary = required("prometheus")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules), encoding="utf-8")
    configuration = {
        "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [
            {
                "job_name": "quickfix",
                "static_configs": [
                    {"targets": list(hosts), "labels": {"namespace": namespace}}
                    for namespace, hosts in targets.items()
                ],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with (folder / "prometheus.log").open("ab") as log:
        process = subprocess.Popen(
            [
                binary,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_ready(f"http://{address}", process, folder / "prometheus.log")
        server = Prometheus(f"http://{address}")
        number = sum(map(len, targets.values()))
        server.wait(lambda: server.value("count(up == 1)") == number, "all targets scraped")
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(f"{url}/-/ready", timeout=2).status_code == httpx.codes.OK:
                return
        time.sleep(0.1)
    raise RuntimeError(f"Prometheus did not start:\n{log.read_text()[-3000:]}")


def shipped_rules(path: Path) -> dict[str, Any]:
    """The rule file inside a PrometheusRule."""
    spec: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["spec"]
    return spec


def hastened(rules: dict[str, Any]) -> dict[str, Any]:
    """The same expressions, evaluated every second, with every `for` cut to two seconds.

    Nothing else changes: windows, thresholds and labels are those that ship.
    """
    copy: dict[str, Any] = json.loads(json.dumps(rules))
    for group in copy["groups"]:
        group["interval"] = "1s"
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = "2s"
    return copy
