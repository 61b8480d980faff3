"""Half of saturation for long (`-t 8h`): latency at the end as at the beginning."""

from loadtests.open_loop import OpenLoop


class Soak(OpenLoop):
    """Whatever grows with time would show as drift."""

    share = 0.5
