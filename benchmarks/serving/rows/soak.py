"""Resident memory of the service under load for a long time."""

import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.serving.bench import Bench
from benchmarks.serving.load import closed_loop, open_loop
from benchmarks.serving.report import Bound, Row
from benchmarks.serving.statistics import growth
from benchmarks.serving.workload import arrivals, mixed

__all__ = ["measure"]

_WARM_SHARE = 0.1  # of the time: caches fill, the allocator finds its size
_WARM_SECONDS = 120.0  # at most
_SAMPLES = 600


def measure(bench: Bench) -> list[Row]:
    """A Poisson stream at `soak_load` of saturation, memory of the process tree meanwhile."""
    plan = bench.plan
    requests = bench.mixed
    references = bench.references(requests)
    with bench.fresh() as server, ThreadPoolExecutor(1) as pool:
        for _ in range(2):  # the first warms
            saturated = closed_loop(
                server.url, requests, clients=plan.clients, references=references
            ).throughput
        rate = plan.soak_load * saturated
        stream = mixed(max(1, int(rate * plan.soak_seconds)), seed=plan.seed, steps=plan.steps)
        moments = arrivals(len(stream), rate=rate, seed=plan.seed)
        checked = bench.references(stream[: max(1, plan.requests // 8)])
        sending = pool.submit(open_loop, server.url, stream, at=moments, references=checked)
        times, resident = [], []
        started_at = time.monotonic()
        warm = min(_WARM_SECONDS, _WARM_SHARE * plan.soak_seconds)
        while not sending.done():
            time.sleep(plan.soak_seconds / _SAMPLES)
            now = time.monotonic() - started_at
            # What comes after the last arrival is no load.
            if warm <= now <= moments[-1]:
                times.append(now)
                resident.append(float(server.resident_bytes))
        load = sending.result()
    found = growth(times, resident)
    first, last = resident[0] / 2**20, resident[-1] / 2**20
    return [
        Row(
            "soak",
            f"resident memory after {plan.soak_seconds / 60:.0f} min at "
            f"{100 * plan.soak_load:.0f} % load, {len(load.latencies)} images: {last:.0f} MiB",
            f"after warm-up: {first:.0f} MiB; the ratio is the growth",
            Bound("at most", 0.02),
            found.worst,
            details={
                "seconds": plan.soak_seconds,
                "rate_per_second": rate,
                "saturation_per_second": saturated,
                "growth_by_slope": found.by_slope,
                "growth_by_quartiles": found.by_quartiles,
                "warm_seconds": warm,
                "load": load.document(),
                "samples": {"seconds": times, "resident_bytes": resident},
            },
        )
    ]
