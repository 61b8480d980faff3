"""Open loop: requests leave when a Poisson process says so, however slow the answers are."""

from random import Random
from typing import ClassVar

import gevent
from gevent.pool import Group
from locust import task
from locust.exception import StopTest, StopUser

from loadtests.arrivals import poisson
from loadtests.image_user import ImageUser

__all__ = ["OpenLoop"]


class OpenLoop(ImageUser):
    """One dispatcher, and a greenlet for each arrival.

    Latency counts from the intended moment of sending, so that neither a slow service nor a slow
    generator can hide a wait; how late the generator was is recorded beside it.
    """

    abstract = True
    fixed_count = 1
    share: ClassVar[float]  # of the measured saturation
    peak: ClassVar[float] = 1.0  # times `share`, the most that `load_at` says

    def load_at(self, _passed: float) -> float:
        """Times `share`, when that share of the run has passed."""
        return 1.0

    def on_start(self) -> None:
        """An open loop needs to know its rate."""
        options = self.environment.parsed_options
        if not options.saturation or not options.run_time:
            raise StopTest("give the measured --saturation in images per second, and -t")
        self.rate = self.share * options.saturation
        self.seconds = float(options.run_time)
        self.arrivals_seed = options.random_seed

    @task
    def dispatch(self) -> None:
        """All arrivals of the run, and then the answers that are still out."""
        moments = poisson(
            lambda moment: self.rate * self.load_at(moment / self.seconds),
            peak=self.rate * self.peak,
            seconds=self.seconds,
            random=Random(self.arrivals_seed),
        )
        out = Group()
        for intended in moments:
            gevent.sleep(max(0.0, intended - self.now()))
            out.spawn(self.draw, intended)
        gevent.sleep(max(0.0, self.seconds - self.now()))
        out.join()
        raise StopUser
