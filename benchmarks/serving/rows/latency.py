"""Latency of an open-loop Poisson stream: the service and BentoML's adaptive batching.

Latency counts from the moment at which a request was to be sent, so a server that makes the next
ones wait is charged for it. The verdict is at one rate for both, `load` of what the adaptive peer
reaches at saturation; the service at `load` of its own saturation is told beside it. The peer has
one setting for saturation and another for the stream, the better one for each.
"""

from benchmarks.serving.bench import Bench, in_turn
from benchmarks.serving.load import Load, open_loop
from benchmarks.serving.report import Bound, Row
from benchmarks.serving.servers import ADAPTIVE_STREAM, QUICKFIX, Server
from benchmarks.serving.statistics import Spread, percentile, ratios
from benchmarks.serving.workload import arrivals, mixed

__all__ = ["measure"]

PEER = "adaptive"
OWN = f"{QUICKFIX} at its own rate"


def measure(bench: Bench) -> list[Row]:
    """In every repeat all sides get the same requests; the moments are scaled by the rate."""
    plan = bench.plan
    saturation = bench.saturation(PEER, QUICKFIX)
    rates = {
        PEER: plan.load * saturation.throughput(PEER).median,
        QUICKFIX: plan.load * saturation.throughput(PEER).median,
        OWN: plan.load * saturation.throughput(QUICKFIX).median,
    }
    own = bench.server(QUICKFIX)
    # Warmed by half the clients: a crowd would wait longer than this peer lets a request take.
    peer = bench.server(ADAPTIVE_STREAM, clients=plan.clients // 2)
    servers = {PEER: peer, QUICKFIX: own, OWN: own}
    loads: dict[str, list[Load]] = {name: [] for name in rates}
    for repeat, name in in_turn(plan.repeats, tuple(rates)):
        loads[name].append(_stream(bench, servers[name], rates[name], repeat))
    return [
        _row(bench, loads, rates, QUICKFIX, Bound("at most", 0.5)),
        _row(bench, loads, rates, OWN, None),
    ]


def _stream(bench: Bench, server: Server, rate: float, repeat: int) -> Load:
    plan = bench.plan
    seed = plan.seed + 1000 * (repeat + 1)
    requests = mixed(plan.stream, seed=seed, steps=plan.steps)
    references = bench.references(requests[: plan.requests // 8])
    moments = arrivals(plan.stream, rate=rate, seed=seed)
    return open_loop(server.url, requests, at=moments, references=references)


def _row(
    bench: Bench,
    loads: dict[str, list[Load]],
    rates: dict[str, float],
    ours: str,
    bound: Bound | None,
) -> Row:
    plan = bench.plan
    p95 = {name: Spread(tuple(load.p95 for load in loads[name])) for name in (ours, PEER)}
    pooled = {
        name: percentile([second for load in loads[name] for second in load.latencies], 0.95)
        for name in (ours, PEER)
    }
    share = f"{100 * plan.load:.0f} %"
    whose = "of its own saturation" if ours == OWN else "of the peer's saturation"
    return Row(
        "latency",
        f"p95 latency, Poisson at {rates[ours]:.2f}/s, {share} {whose}: {p95[ours].median:.2f} s",
        f"BentoML's adaptive batching at {rates[PEER]:.2f}/s: {p95[PEER].median:.2f} s",
        bound,
        p95[ours].median / p95[PEER].median,
        ratios(p95[ours], p95[PEER]),
        details={
            "rates_per_second": {name: rates[name] for name in (ours, PEER)},
            "p95_seconds": {name: spread.document() for name, spread in p95.items()},
            "p95_seconds_of_all_repeats_together": pooled,
            "requests_of_a_stream": plan.stream,
            "loads": {name: [load.document() for load in loads[name]] for name in (ours, PEER)},
        },
    )
