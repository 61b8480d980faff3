"""What the manifests are held against, asked of the service itself."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from prometheus_client.metrics import MetricWrapperBase

from service import metrics
from service.settings import Settings

__all__ = ["IMAGE_USER", "Contract", "contract", "port", "system_paths"]

# Who BentoML's images run as; tools/bento.py looks it up in the Dockerfile of the built one.
IMAGE_USER = 1034

_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}


@dataclass(frozen=True)
class Contract:
    """Names, paths and numbers that the service really has."""

    variables: frozenset[str]
    probe_paths: frozenset[str]
    public_paths: frozenset[str]
    port: int
    metrics: frozenset[str]

    def settings(self, environ: Mapping[str, str]) -> Settings:
        """The settings that a container would start with. Raises SettingsInvalid."""
        return Settings.from_env(environ)


@cache
def system_paths() -> frozenset[str]:
    """Paths that BentoML itself serves for this service."""
    from _bentoml_impl.server.app import ServiceAppFactory  # noqa: PLC0415 - loads torch

    from service.app import QuickFix  # noqa: PLC0415 - loads torch

    QuickFix.inject_config()  # type: ignore[attr-defined] # BentoML has no types
    return frozenset(route.path for route in ServiceAppFactory(QuickFix, is_main=True).routes)


def port() -> int:
    """The port that BentoML listens on when nobody says otherwise."""
    from bentoml._internal.configuration.containers import (  # noqa: PLC0415 - loads BentoML
        BentoMLContainer,
    )

    return int(BentoMLContainer.http.port.get())


@cache
def contract() -> Contract:
    """The contract of the service in this checkout."""
    return Contract(
        variables=frozenset(Settings.variables()),
        probe_paths=system_paths(),
        public_paths=frozenset(_public_paths()),
        port=port(),
        metrics=frozenset(_series(getattr(metrics, name) for name in metrics.__all__)),
    )


def _public_paths() -> Iterable[str]:
    """Paths of the routes that need no operator: those of the public router."""
    from service.api.app import create_api  # noqa: PLC0415 - loads torch

    api, _edge = create_api()
    return (path for path in api.openapi()["paths"] if not path.startswith("/admin"))


def _series(objects: Iterable[object]) -> Iterable[str]:
    """Names under which Prometheus finds the metrics."""
    for metric in objects:
        assert isinstance(metric, MetricWrapperBase), inspect.getmodule(metric)  # noqa: S101
        (family,) = metric.describe()
        yield from (family.name + suffix for suffix in _SUFFIXES[family.type])
