"""A trace on a local Ray cluster of two nodes gives what this process gives."""

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from edits.tracing.result import read_result

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
