"""What the real service answers to, read from its routers: routes, probe paths and port."""

from functools import cache

from tools.k8s.contract import port, system_paths

__all__ = ["MACHINE_ROUTES", "port", "probe_paths", "routes"]

# Pages about the API, not calls of it.
MACHINE_ROUTES = {("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json")}


def probe_paths() -> frozenset[str]:
    """`/livez`, `/readyz` and what else needs no token and no body."""
    return system_paths()


@cache
def routes() -> frozenset[tuple[str, str]]:
    """Every (method, path) of the public contract, BentoML's own included."""
    from service.api.app import create_api  # noqa: PLC0415 - loads torch

    api, _edge = create_api()
    own = {
        (method.upper(), path) for path, item in api.openapi()["paths"].items() for method in item
    }
    return frozenset(own | {("GET", path) for path in system_paths()})
