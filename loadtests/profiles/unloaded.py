"""One client alone: the latency that others are compared with."""

from loadtests.image_user import ClosedLoop


class Unloaded(ClosedLoop):
    """Give it `-u 1`."""
