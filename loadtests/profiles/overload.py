"""Twice the saturation: what is refused is told when to come back, what is admitted is drawn."""

from loadtests.open_loop import OpenLoop


class Overload(OpenLoop):
    """Only 200 and 429, and as many images as at saturation once the queue is full."""

    share = 2.0
    peak = 3.0
    settled = 0.25

    def load_at(self, passed: float) -> float:
        """More at first, to fill the queue: what counts is the time when it is full."""
        return self.peak if passed < 0.15 else 1.0
