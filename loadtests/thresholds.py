"""What a run must keep: the one place to change it. A breach makes the exit code 1."""

from collections.abc import Iterator
from dataclasses import dataclass

from loadtests.outcome import Outcome

__all__ = ["MAX_PIXEL_DIFFERENCE", "THRESHOLDS", "Baseline", "Thresholds"]

# Of 255. Images that were drawn together may differ in the last bit from ones drawn alone.
MAX_PIXEL_DIFFERENCE = 1


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the service does without load and at most; None or 0 where it was not measured."""

    unloaded_ms: float | None = None  # median latency of one client alone
    saturation: float | None = None  # images per second


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Bounds of one profile. None: no bound."""

    min_images: int = 5  # a run that measured nothing proves nothing
    min_compared: int = 1  # images that were drawn a second time
    min_compared_each: int = 0  # the same under each digest
    min_told_apart: int = 0  # images that one digest draws otherwise than another
    max_failed: int = 0
    min_refused: int = 0
    max_refused: float = 0.0  # share of all requests
    max_lateness_p99_ms: float = 20.0  # of the generator itself
    max_generator_cpu: float = 0.25  # share of one core, which the service may need
    max_p95: float | None = None  # times the unloaded latency
    min_goodput: float | None = None  # times saturation
    max_drift: float | None = None  # p95, end over beginning
    min_activations: int = 0

    def breaches(self, outcome: Outcome, baseline: Baseline) -> Iterator[str]:
        """One sentence for every bound that does not hold."""
        yield from self._unproven(outcome)
        yield from self._broken(outcome)
        if outcome.lateness_p99_ms > self.max_lateness_p99_ms:
            yield (
                f"requests were sent {outcome.lateness_p99_ms:.1f} ms late (p99), "
                f"{self.max_lateness_p99_ms:g} ms may be: the generator is too slow here"
            )
        if outcome.generator_cpu > self.max_generator_cpu:
            yield (
                f"the generator took {outcome.generator_cpu:.0%} of a core, "
                f"{self.max_generator_cpu:.0%} may be"
            )
        yield from self._slow(outcome, baseline)

    def _unproven(self, outcome: Outcome) -> Iterator[str]:
        if outcome.drawn < self.min_images:
            yield f"{outcome.drawn} images, at least {self.min_images} are needed for a verdict"
        compared = sum(outcome.compared.values())
        if compared < self.min_compared:
            yield f"{compared} images were drawn again, {self.min_compared} are needed"
        for digest, again in outcome.compared.items():
            if again < self.min_compared_each:
                yield (
                    f"{again} images were drawn again under {digest}, "
                    f"{self.min_compared_each} are needed"
                )
        if outcome.told_apart < self.min_told_apart:
            yield (
                f"{outcome.told_apart} images differ from those of another digest, "
                f"{self.min_told_apart} are needed: a mixed revision could not be seen"
            )
        if outcome.refused < self.min_refused:
            yield f"{outcome.refused} requests were refused: the queue was not full"
        if outcome.activations < self.min_activations:
            yield f"{outcome.activations} activations, {self.min_activations} are needed"

    def _broken(self, outcome: Outcome) -> Iterator[str]:
        if outcome.failed > self.max_failed:
            worst = max(outcome.failures, key=lambda kind: outcome.failures[kind])
            yield f"{outcome.failed} of {outcome.requests} failed, {self.max_failed} may: {worst}"
        if outcome.refused > self.max_refused * outcome.requests:
            yield (
                f"{outcome.refused} of {outcome.requests} requests met a full queue, "
                f"{self.max_refused:.0%} may"
            )

    def _slow(self, outcome: Outcome, baseline: Baseline) -> Iterator[str]:
        if self.max_p95 is not None:
            if not baseline.unloaded_ms:
                yield "the unloaded latency is not known (--unloaded-ms)"
            elif outcome.latency.p95 > self.max_p95 * baseline.unloaded_ms:
                yield (
                    f"p95 is {outcome.latency.p95 / baseline.unloaded_ms:.2f} times "
                    f"the unloaded latency, {self.max_p95:g} may be"
                )
        if self.min_goodput is not None:
            if not baseline.saturation:
                yield "the saturation is not known (--saturation)"
            elif outcome.goodput < self.min_goodput * baseline.saturation:
                yield (
                    f"goodput is {outcome.goodput / baseline.saturation:.1%} of saturation, "
                    f"at least {self.min_goodput:.0%} must be"
                )
        if self.max_drift is not None and outcome.drift > self.max_drift:
            yield f"p95 grew {outcome.drift:.2f} times during the run, {self.max_drift:g} may be"


THRESHOLDS = {
    "unloaded": Thresholds(),
    "saturation": Thresholds(),
    "steady": Thresholds(max_p95=1.5),
    "overload": Thresholds(min_refused=1, max_refused=1.0, min_goodput=0.95),
    "swap": Thresholds(min_activations=5, min_compared_each=1, min_told_apart=1),
    "spike": Thresholds(max_refused=1.0, max_p95=1.5),  # of what comes once the spike is over
    "soak": Thresholds(max_p95=1.5, max_drift=1.25),
}
