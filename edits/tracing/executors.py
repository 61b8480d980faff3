"""Who draws the batches of a plan: this process, or the workers of a Ray cluster.

Batches stand alone and are drawn alike everywhere, so both give the same scores.
"""

import contextlib
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from edits.errors import TraceError, TraceInvalid
from edits.tracing.options import TraceOptions
from edits.tracing.plan import Batch
from edits.tracing.prompts import TracePair
from edits.tracing.scores import scorers_for
from edits.tracing.tracer import Tracer

Scores = list[list[float]]
_CONNECT_SECONDS = 10
_RESTARTS = 3  # of a worker that dies: its node ran out of memory, or was taken away


@dataclass(frozen=True)
class TraceJob:
    """All that a worker needs to draw any batch of a trace."""

    model: str
    prompts: Mapping[str, tuple[TracePair, ...]]
    options: TraceOptions
    device: str = "cpu"
    dtype: str = "float32"
    clip_model: str | None = None

    def tracer(self) -> Tracer:
        """Load the pipeline and its scorers. Raises ModelLoadError and what Tracer raises."""
        from edits.loading import load_any_pipeline  # noqa: PLC0415 - diffusers loads slowly
        from edits.tracing.layout import Layout  # noqa: PLC0415

        pipeline = load_any_pipeline(
            self.model, device=self.device, dtype=getattr(torch, self.dtype)
        )
        layout = Layout.of(pipeline)
        layout.denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # faster
        scorers = scorers_for(self.model, layout, clip_model=self.clip_model, device=self.device)
        return Tracer(pipeline, self.prompts, self.options, scorers)


class Executor(Protocol):
    """Draws batches; answers their numbers and scores as they are done."""

    def run(self, batches: Sequence[tuple[int, Batch]], rows: int) -> Iterator[tuple[int, Scores]]:
        """Each batch once, in any order."""


class LocalExecutor:
    """Draws in this process, in order."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def run(self, batches: Sequence[tuple[int, Batch]], rows: int) -> Iterator[tuple[int, Scores]]:
        """Each batch once, in order."""
        for number, batch in batches:
            yield number, self._tracer.draw(batch, rows)


class RayExecutor:
    """Draws on `workers` actors of a Ray cluster, each with its own copy of the pipeline.

    `address` names a running cluster; without it one is started on this machine. The model must
    lie at the same path, or have the same hub id, on every node.
    """

    def __init__(
        self, job: TraceJob, *, workers: int, address: str | None = None, gpus: float = 0
    ) -> None:
        try:
            import ray  # noqa: PLC0415 - an extra
        except ImportError:
            raise TraceInvalid(
                "the ray executor needs Ray: pip install 'quickfix[ray]'", param="executor"
            ) from None
        if workers < 1:
            raise TraceInvalid("workers: at least one is needed", param="workers")
        self._ray = ray
        # Workers stand in another directory: a folder is named by its whole path.
        self._job = replace(job, model=_anywhere(job.model))
        if job.clip_model is not None:
            self._job = replace(self._job, clip_model=_anywhere(job.clip_model))
        self._workers = workers
        self._gpus = gpus
        self._address = address

    def run(self, batches: Sequence[tuple[int, Batch]], rows: int) -> Iterator[tuple[int, Scores]]:
        """Each batch once, as the workers finish them; what a worker that died held is drawn again.

        Raises TraceError when one dies again and again.
        """
        ray = self._ray
        started = not ray.is_initialized()
        # Ray prints a worker's death to stdout, where a command's own answer goes; it tells of it
        # late, at times only while it shuts down.
        with contextlib.redirect_stdout(sys.stderr):
            if started:
                self._connect()
            try:
                worker = ray.remote(
                    num_cpus=1,
                    num_gpus=self._gpus,
                    max_restarts=_RESTARTS,
                    max_task_retries=_RESTARTS,
                )(_Worker)
                pool = ray.util.ActorPool([worker.remote(self._job) for _ in range(self._workers)])
                yield from pool.map_unordered(
                    lambda actor, item: actor.draw.remote(*item, rows), list(batches)
                )
            except ray.exceptions.RayActorError as error:
                raise TraceError(_why_it_died(error)) from error.with_traceback(None)
            finally:
                if started:
                    ray.shutdown()

    def _connect(self) -> None:
        if self._address is None:  # "local": a cluster that happens to run here is not ours
            self._ray.init(
                address="local",
                num_cpus=self._workers,
                include_dashboard=False,
                log_to_driver=False,
            )
            return
        try:
            # Ray waits for minutes for a cluster that is not there.
            host, _, port = self._address.removeprefix("ray://").rpartition(":")
            if port.isdigit():
                socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
            self._ray.init(address=self._address, log_to_driver=False)
        except (OSError, ValueError) as error:
            raise TraceInvalid(
                f"no Ray cluster answers at {self._address!r}, or it wants another RAY_AUTH_TOKEN",
                param="ray_address",
            ) from error


def _anywhere(source: str) -> str:
    """A folder's absolute path; a hub id as it is."""
    folder = Path(source).expanduser()
    return str(folder.resolve()) if folder.is_dir() else source


def _why_it_died(error: Any) -> str:
    """What Ray's RayActorError means for a trace, and what to do."""
    ray_says = str(error).strip().splitlines()
    if error.actor_init_failed:
        return (
            "a worker of the Ray cluster could not start; the model must lie at the same path, or "
            f"have the same hub id, on every node. Ray says: {ray_says[-1]}"
        )
    if any("never ran" in line for line in ray_says):
        return (
            "the Ray cluster started no worker: set RAY_AUTH_MODE and RAY_AUTH_TOKEN as on the "
            "cluster's nodes (a token that lies in ~/.ray counts as set). Ray says: "
            + " ".join(ray_says[-2:])
        )
    return (
        f"a worker of the Ray cluster died {_RESTARTS + 1} times; what was drawn is kept: look at "
        "the cluster's logs, give its nodes more memory, and run the same command again. "
        f"Ray says: {ray_says[-1]}"
    )


class _Worker:
    """One actor."""

    def __init__(self, job: TraceJob) -> None:
        self._tracer = job.tracer()

    def draw(self, number: int, batch: Batch, rows: int) -> tuple[int, Scores]:
        return number, self._tracer.draw(batch, rows)
