"""Half of saturation, then three times of it for a while: how soon is all as before?"""

from loadtests.open_loop import OpenLoop


class Spike(OpenLoop):
    """The spike is the second fifth of the run; latency counts in the last two fifths."""

    share = 0.5
    peak = 6.0
    settled = 0.6

    def load_at(self, passed: float) -> float:
        """Six times `share` while the spike is on."""
        return self.peak if 0.2 <= passed < 0.4 else 1.0
