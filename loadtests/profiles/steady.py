"""70 % of saturation: what clients feel of a service that is well used."""

from loadtests.open_loop import OpenLoop


class Steady(OpenLoop):
    """No failure, and a p95 near the unloaded latency."""

    share = 0.7
