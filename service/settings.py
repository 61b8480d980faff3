"""Every knob of the service: one frozen model, read once from the environment.

A field `max_queue` is the variable `QUICKFIX_MAX_QUEUE`; nothing else in the service reads the
environment.
"""

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from service.errors import SettingsInvalid

__all__ = ["MAX_REQUEST_SECONDS", "PREFIX", "Settings", "child_environment", "metrics_folder"]

PREFIX = "QUICKFIX_"

# BentoML's own timer (service/app.py) must outlast every deadline that is set here.
MAX_REQUEST_SECONDS = 600.0

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
_STORE_SCHEMES = ("sqlite:///", "postgresql+psycopg://")


class Settings(BaseModel):
    """What one replica is told at start; seconds are seconds, sizes are counts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field("models/demo", min_length=1, description="Pipeline folder or hub id.")
    device: str = Field("auto", description="`auto`, `cpu`, `cuda` or `cuda:N`.")
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32", description="Precision of the UNet, VAE and text encoder."
    )
    backend: Literal["torch", "onnx"] = Field(
        "torch", description="What runs the UNet and the VAE decoder."
    )
    compile: bool = Field(
        False, description="Compile the UNet with `torch.compile`: backend torch on a GPU only."
    )
    cuda_graphs: bool = Field(
        False,
        description="Record the UNet's passes of few rows at the native size as CUDA graphs: "
        "backend torch on a GPU only.",
    )
    threads: int = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)),
        ge=1,
        le=1024,
        description="CPU threads of one torch operation; default: every core of this process.",
    )
    state_dir: Path = Field(
        Path(".quickfix"),
        description="Where this replica keeps its store, its token file, its model's covariance.",
    )
    store: str = Field("", description="Revision store; default: `quickfix.db` in the state dir.")
    edits_dir: Path | None = Field(
        None, description="A directory of manifests that is the desired state."
    )
    tokens_file: Path | None = Field(None, description="YAML file of hashed admin tokens.")
    api_keys_file: Path | None = Field(
        None, description="YAML file of hashed API keys and the policies that they allow."
    )
    trusted_keys: Path | None = Field(
        None, description="YAML file of public keys: only sets that they signed run."
    )
    max_batch: int = Field(
        16, ge=1, le=256, description="Images that are drawn together; the others wait."
    )
    warm_up_seconds: float = Field(
        10.0,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="Time for passes of every batch size before the first request.",
    )
    embedding_cache_mib: int = Field(
        64, ge=0, le=65_536, description="Memory for embeddings of prompts seen before, in MiB."
    )
    max_queue: int = Field(64, ge=1, le=100_000, description="Requests that may wait.")
    poll_seconds: float = Field(
        1.0, ge=0.05, le=3600, allow_inf_nan=False, description="How often the head is read."
    )
    max_staleness_seconds: float | None = Field(
        None,
        ge=10,  # several heartbeats: what counts is the last one that was stored
        le=86_400,
        allow_inf_nan=False,
        description="Not ready, and no new requests, after so long off the head; default: never.",
    )
    request_timeout_seconds: float = Field(
        120.0,
        gt=0,
        le=MAX_REQUEST_SECONDS,
        allow_inf_nan=False,
        description="Deadline of one request, queue included.",
    )
    drain_seconds: float = Field(
        30.0, ge=0, le=3600, allow_inf_nan=False, description="How long running work may finish."
    )
    replica: str = Field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}",
        min_length=1,
        max_length=200,
        description="Name of this replica in the store.",
    )

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not _DEVICE.fullmatch(value):
            raise ValueError("must be auto, cpu, cuda or cuda:N")
        return value

    @field_validator("store")
    @classmethod
    def _known_store(cls, value: str) -> str:
        if value and not value.startswith(_STORE_SCHEMES):
            raise ValueError(f"must begin with one of {', '.join(_STORE_SCHEMES)}")
        return value

    @model_validator(mode="after")
    def _half_precision_needs_a_gpu(self) -> Self:
        if self.device == "cpu" and self.dtype == "float16":
            raise ValueError("dtype float16 needs a GPU; use float32 or bfloat16 on device cpu")
        return self

    @model_validator(mode="after")
    def _backend_runs_what_is_asked(self) -> Self:
        if self.backend == "onnx" and self.dtype == "bfloat16":
            raise ValueError("backend onnx runs dtype float32 or float16; choose one of them")
        for name in ("compile", "cuda_graphs"):
            if getattr(self, name) and (self.backend == "onnx" or self.device == "cpu"):
                raise ValueError(f"{name} is for backend torch on a GPU; leave it out")
        if self.compile and self.cuda_graphs:
            raise ValueError("compile and cuda_graphs exclude each other; choose one")
        return self

    @property
    def store_url(self) -> str:
        """URL of the revision store, the default filled in."""
        return self.store or f"sqlite:///{self.state_dir.resolve() / 'quickfix.db'}"

    @classmethod
    def variables(cls) -> tuple[str, ...]:
        """Names of all variables, sorted."""
        return tuple(sorted(PREFIX + name.upper() for name in cls.model_fields))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read and check every `QUICKFIX_` variable; an empty one counts as not set.

        Raises SettingsInvalid naming the variable, also for a name that is not known: a
        misspelt `QUICKFIX_EDITS_DIR` must not start a service without its edits.
        """
        given = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
        unknown = sorted(set(given) - set(cls.variables()))
        if unknown:
            known = ", ".join(cls.variables())
            raise SettingsInvalid(
                f"unknown variable {unknown[0]}; known: {known}", param=unknown[0]
            )
        fields = {name.removeprefix(PREFIX).lower(): text for name, text in given.items() if text}
        try:
            return cls.model_validate(fields)
        except ValidationError as invalid:
            first = invalid.errors()[0]
            name = PREFIX + str(first["loc"][0]).upper() if first["loc"] else f"{PREFIX}*"
            raise SettingsInvalid(f"{name}: {first['msg']}", param=name) from None


def child_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a process that is told everything by its options: without our own."""
    return {name: text for name, text in environ.items() if not name.startswith(PREFIX)}


def metrics_folder(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Where prometheus_client keeps its files, as BentoML says; None outside of BentoML."""
    folder = environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None
