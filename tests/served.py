"""What the real service answers to, read from its routers: routes, probe paths and port."""

from functools import cache

__all__ = ["MACHINE_ROUTES", "port", "probe_paths", "routes"]

# Pages about the API, not calls of it.
MACHINE_ROUTES = {("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json")}


@cache
def _system_paths() -> frozenset[str]:
    """Paths that BentoML itself serves for this service."""
    from _bentoml_impl.server.app import ServiceAppFactory  # noqa: PLC0415 - loads torch

    from service.app import QuickFix  # noqa: PLC0415 - loads torch

    QuickFix.inject_config()
    return frozenset(route.path for route in ServiceAppFactory(QuickFix, is_main=True).routes)


def probe_paths() -> frozenset[str]:
    """`/livez`, `/readyz` and what else needs no token and no body."""
    return _system_paths()


@cache
def routes() -> frozenset[tuple[str, str]]:
    """Every (method, path) of the public contract, BentoML's own included."""
    from service.api.app import create_api  # noqa: PLC0415 - loads torch

    api, _edge = create_api()
    own = {
        (method.upper(), path) for path, item in api.openapi()["paths"].items() for method in item
    }
    return frozenset(own | {("GET", path) for path in _system_paths()})


def port() -> int:
    """The port that BentoML listens on when nobody says otherwise."""
    from bentoml._internal.configuration.containers import (  # noqa: PLC0415 - loads BentoML
        BentoMLContainer,
    )

    return int(BentoMLContainer.http.port.get())
