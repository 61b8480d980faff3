"""What a run measured: samples of single requests, and the figures that a verdict needs."""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Latency", "Outcome", "Record", "Sample", "percentile"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. Moments are seconds since the run began."""

    intended: float  # when it was to be sent
    sent: float
    ended: float
    kind: str  # "drawn", "refused" or, in words, how it broke the contract

    @property
    def latency(self) -> float:
        """Seconds from the intended moment: a request that is sent late has waited too."""
        return self.ended - self.intended


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles in milliseconds."""

    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Latency":
        """Of single measurements."""
        return cls(*(round(1000 * percentile(seconds, share), 1) for share in (0.5, 0.95, 0.99)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run in figures. Latencies are of images alone, from the intended moment of sending."""

    profile: str
    seconds: float  # for how long requests were sent
    offered: float  # requests per second, all the time
    requests: int
    drawn: int
    refused: int  # 429 with a usable Retry-After: an honest answer, not a failure
    failures: dict[str, int]
    goodput: float  # images per second, once it had settled
    latency: Latency
    service: Latency  # from the real moment of sending
    lateness_p99_ms: float
    drift: float  # p95 of the last quarter over that of the first
    compared: dict[str, int]  # images that were drawn again and compared, by digest
    told_apart: int  # images that one digest draws otherwise than another
    revisions: int
    activations: int
    activation_p95_ms: float
    generator_cpu: float  # share of one core

    @property
    def failed(self) -> int:
        """Requests and activations that broke the contract."""
        return sum(self.failures.values())

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "failed": self.failed}


@dataclass
class Record:
    """What happens while a run goes on."""

    samples: list[Sample] = field(default_factory=list)
    activations: list[Sample] = field(default_factory=list)
    revisions: set[int] = field(default_factory=set)
    acknowledged: int = 0  # the newest revision whose activation has been answered

    def outcome(
        self,
        profile: str,
        *,
        seconds: float,
        settled: float,
        compared: Mapping[str, int],
        told_apart: int,
        generator_cpu: float,
    ) -> Outcome:
        """The figures; percentiles and goodput are of what was to be sent from `settled` on."""
        drawn = [sample for sample in self.samples if sample.kind == "drawn"]
        late = [sample for sample in drawn if sample.intended >= settled]
        broken = Counter(
            sample.kind
            for sample in (*self.samples, *self.activations)
            if sample.kind not in ("drawn", "refused", "activated")
        )
        ended = sorted(s.ended for s in drawn if settled <= s.ended <= seconds)
        return Outcome(
            profile=profile,
            seconds=seconds,
            offered=round(len(self.samples) / seconds, 3),
            requests=len(self.samples),
            drawn=len(drawn),
            refused=sum(sample.kind == "refused" for sample in self.samples),
            failures=dict(broken),
            goodput=round(_slope(ended), 3),
            latency=Latency.of([sample.latency for sample in late]),
            service=Latency.of([sample.ended - sample.sent for sample in late]),
            lateness_p99_ms=round(
                1000 * percentile([s.sent - s.intended for s in self.samples], 0.99), 2
            ),
            drift=round(_drift(late), 3),
            compared=dict(compared),
            told_apart=told_apart,
            revisions=len(self.revisions),
            activations=sum(sample.kind == "activated" for sample in self.activations),
            activation_p95_ms=Latency.of([s.latency for s in self.activations]).p95,
            generator_cpu=round(generator_cpu, 4),
        )


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of all values do not exceed; 0 of none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _slope(moments: Sequence[float]) -> float:
    """Events per second, as the slope of their staircase.

    Images of one batch end together: a count in a window would be off by one batch at each end.
    """
    if len(set(moments)) < 2:
        return 0.0
    return statistics.linear_regression(moments, range(len(moments))).slope


def _drift(samples: Sequence[Sample]) -> float:
    """1.0 when there are too few to tell."""
    ordered = sorted(samples, key=lambda sample: sample.intended)
    quarter = len(ordered) // 4
    if quarter == 0:
        return 1.0
    first, last = (
        percentile([sample.latency for sample in part], 0.95)
        for part in (ordered[:quarter], ordered[-quarter:])
    )
    return last / first
