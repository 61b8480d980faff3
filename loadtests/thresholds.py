"""What a run must keep: the one place to change it. A breach makes locust's exit code 1."""

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["THRESHOLDS", "Outcome", "Thresholds"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run measured. Latency is of the images route without its 429s, in milliseconds."""

    images: int
    refused: int  # 429 with Retry-After: an honest answer, not a failure
    failures: int
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Bounds of one run."""

    min_images: int  # a run that measured nothing proves nothing
    max_fail_ratio: float  # of all requests
    max_refused_ratio: float  # of all requests
    max_p95_ms: float

    def breaches(self, outcome: Outcome) -> Iterator[str]:
        """One sentence for every bound that does not hold."""
        if outcome.images < self.min_images:
            yield f"{outcome.images} images, at least {self.min_images} are needed for a verdict"
        total = outcome.images + outcome.refused + outcome.failures
        if total and outcome.failures / total > self.max_fail_ratio:
            yield f"{outcome.failures} of {total} requests failed, {self.max_fail_ratio:.1%} may"
        if total and outcome.refused / total > self.max_refused_ratio:
            yield (
                f"{outcome.refused} of {total} requests met a full queue, "
                f"{self.max_refused_ratio:.1%} may"
            )
        if outcome.images and outcome.p95_ms > self.max_p95_ms:
            yield f"p95 is {outcome.p95_ms:.0f} ms, {self.max_p95_ms:.0f} ms are allowed"


# Four closed-loop users on two cores: each waits for the three before it, at 1.5 s an image.
THRESHOLDS = Thresholds(min_images=5, max_fail_ratio=0.0, max_refused_ratio=0.5, max_p95_ms=8000.0)
