"""Throughput at saturation, mixed steps and guidance: the service and both peers."""

from benchmarks.serving.bench import Bench, Saturation
from benchmarks.serving.report import Bound, Row
from benchmarks.serving.servers import PEERS, QUICKFIX
from benchmarks.serving.statistics import ratios

__all__ = ["measure"]

_BOUNDS = {"plain": Bound("at least", 2.0), "adaptive": Bound("at least", 1.2)}
_TITLES = {
    "plain": "BentoML, diffusers and a lock",
    "adaptive": "BentoML's adaptive batching",
}


def measure(bench: Bench) -> list[Row]:
    """Closed loop: the same requests in the same order, until all are answered.

    The work is fixed and not the time, so a server gains nothing by answering short requests first.
    """
    found = bench.saturation(*PEERS, QUICKFIX)
    return [_row(bench, found, peer) for peer in PEERS]


def _row(bench: Bench, found: Saturation, peer: str) -> Row:
    plan = bench.plan
    ours, theirs = found.throughput(QUICKFIX), found.throughput(peer)
    steps = ", ".join(map(str, plan.steps))
    return Row(
        "throughput",
        f"throughput at saturation, {plan.clients} clients, steps {steps}, guidance mixed: "
        f"{ours.median:.2f} images/s",
        f"{_TITLES[peer]}: {theirs.median:.2f} images/s",
        _BOUNDS[peer],
        ours.median / theirs.median,
        ratios(ours, theirs),
        details={
            "peer": peer,
            "clients": plan.clients,
            "steps": list(plan.steps),
            "requests": plan.requests,
            "images_per_second": {QUICKFIX: ours.document(), peer: theirs.document()},
            "idle_servers_cpu_of_one_core": found.idle_cpu,
            "loads": {
                name: [load.document() for load in found.loads[name]] for name in (QUICKFIX, peer)
            },
        },
    )
