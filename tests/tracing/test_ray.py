"""A trace on a local Ray cluster of two nodes gives what this process gives."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from edits.errors import TraceError, TraceInvalid
from edits.tracing import executors
from edits.tracing.result import read_result
from tests.service.live import free_port

from .test_trace import trace


@pytest.fixture(scope="module")
def cluster():
    """Two nodes on this machine with one worker each."""
    found = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    found.add_node(num_cpus=1)
    found.wait_for_nodes()
    yield found.address
    ray.shutdown()
    found.shutdown()


@pytest.mark.timeout(280)
@pytest.mark.parametrize("target", ["text-encoder", "unet"])
def test_two_workers_give_the_scores_of_this_process(cluster, target, traced_model, tmp_path):
    arguments = (target, "--model", traced_model, "--seeds", 2, "--batch", 8, "--out")
    trace(*arguments, tmp_path / "ray", "--executor", "ray", "--workers", 2,
          "--ray-address", cluster)  # fmt: skip
    trace(*arguments, tmp_path / "local")
    there, here = (read_result(tmp_path / name) for name in ("ray", "local"))
    assert there[0].identity == here[0].identity
    for attribute, array in here[1].items():
        assert np.allclose(there[1][attribute], array, rtol=0, atol=1e-6, equal_nan=True)


class _Dying(executors._Worker):
    """Dies on its first batch as long as there are lives left in the file that LIVES names."""

    def draw(self, number, batch, rows):
        lives = Path(os.environ["LIVES"])
        if left := int(lives.read_text()):
            lives.write_text(str(left - 1))
            os._exit(1)
        return super().draw(number, batch, rows)


def dying(monkeypatch, tmp_path, deaths):
    (tmp_path / "lives").write_text(str(deaths))
    monkeypatch.setenv("LIVES", str(tmp_path / "lives"))
    monkeypatch.setattr(executors, "_Worker", _Dying)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.mark.timeout(280)
def test_a_worker_that_dies_is_started_again_and_its_batch_drawn(
    traced_model, tmp_path, monkeypatch
):
    dying(monkeypatch, tmp_path, deaths=2)
    shutdown = ray.shutdown

    def late() -> None:
        sys.stdout.write("(raylet) A worker died\n")  # as Ray's own threads do, at times only now
        shutdown()

    monkeypatch.setattr(ray, "shutdown", late)
    arguments = ("--model", traced_model, "--seeds", 1, "--attribute", "style", "--out")
    trace(*arguments, tmp_path / "ray", "--executor", "ray", "--workers", 1)
    assert (tmp_path / "lives").read_text() == "0"
    trace(*arguments, tmp_path / "local")
    there, here = (read_result(tmp_path / name)[1]["style"] for name in ("ray", "local"))
    assert np.allclose(there, here, rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.timeout(280)
def test_a_worker_that_always_dies_ends_the_trace_with_a_reason(
    traced_model, tmp_path, monkeypatch
):
    dying(monkeypatch, tmp_path, deaths=99)
    with pytest.raises(TraceError, match="died 4 times"):
        trace("--model", traced_model, "--seeds", 1, "--attribute", "style", "--executor", "ray",
              "--workers", 1, "--out", tmp_path / "ray")  # fmt: skip


class _Unloadable(executors._Worker):
    """Does not find the model on its node."""

    def __init__(self, job):
        raise FileNotFoundError(job.model)


@pytest.mark.timeout(280)
def test_a_worker_that_cannot_load_the_model_says_so(traced_model, tmp_path, monkeypatch):
    monkeypatch.setattr(executors, "_Worker", _Unloadable)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with pytest.raises(TraceError, match=rf"could not start.*FileNotFoundError.*{traced_model}"):
        trace("--model", traced_model, "--seeds", 1, "--attribute", "style", "--executor", "ray",
              "--workers", 1, "--out", tmp_path / "ray")  # fmt: skip


@pytest.mark.timeout(280)
def test_a_token_that_the_cluster_does_not_ask_for_is_named(traced_model, tmp_path):
    """Ray accepts the connection, and then takes the command for dead: it answers no call without a
    token, and such a cluster sends none.
    """
    port = free_port()
    start = [
        sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=1",
        f"--port={port}", "--include-dashboard=false",
    ]  # fmt: skip
    command = [
        sys.executable, "-m", "edits.cli", "trace", "text-encoder", "--model", traced_model,
        "--seeds", "1", "--attribute", "style", "--executor", "ray",
        "--ray-address", f"127.0.0.1:{port}", "--out", tmp_path / "ray",
    ]  # fmt: skip
    environ = os.environ | {"PYTHONPATH": str(Path(executors.__file__).parents[2])}
    node = subprocess.Popen(start, env=environ | {"RAY_AUTH_MODE": "disabled"})
    try:
        run = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    finally:
        node.terminate()
        node.wait()
    assert run.returncode == 1
    assert "RAY_AUTH_TOKEN as on the cluster's nodes" in run.stderr


@pytest.mark.timeout(280)
def test_without_an_address_workers_are_started_here_and_find_a_relative_model(
    traced_model, tmp_path, monkeypatch
):
    monkeypatch.chdir(traced_model.parent)
    arguments = ("--model", traced_model.name, "--seeds", 1, "--attribute", "style", "--out")
    trace(*arguments, tmp_path / "ray", "--executor", "ray", "--workers", 2)
    trace(*arguments, tmp_path / "local")
    there, here = (read_result(tmp_path / name)[1]["style"] for name in ("ray", "local"))
    assert np.allclose(there, here, rtol=0, atol=1e-6, equal_nan=True)


@pytest.mark.timeout(120)
def test_a_cluster_that_does_not_answer_is_named(traced_model, tmp_path):
    with pytest.raises(TraceInvalid, match=r"127\.0\.0\.1:9"):
        trace("--model", traced_model, "--seeds", 1, "--attribute", "style", "--executor", "ray",
              "--ray-address", "127.0.0.1:9", "--out", tmp_path)  # fmt: skip
