"""What the rows share: sizes, servers, references, and the saturation that loads refer to."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.serving.load import Load, closed_loop
from benchmarks.serving.plan import Plan
from benchmarks.serving.references import InProcess, References
from benchmarks.serving.servers import QUICKFIX, Server, start
from benchmarks.serving.statistics import Spread
from benchmarks.serving.workload import ImageRequest, mixed

__all__ = ["Bench", "Saturation", "in_turn"]

_log = logging.getLogger("benchmarks.serving")


def in_turn(repeats: int, names: Sequence[str]) -> Iterator[tuple[int, str]]:
    """A B A B ...: every repeat of one side is next to one of the other."""
    for repeat in range(repeats):
        for name in names:
            _log.info("repeat %d of %d: %s", repeat + 1, repeats, name)
            yield repeat, name


@dataclass(frozen=True, slots=True)
class Saturation:
    """The same requests in the same order to every server, as fast as it can."""

    loads: dict[str, list[Load]]
    idle_cpu: float  # share of one core that the servers used while they were not measured

    def throughput(self, name: str) -> Spread:
        """Images a second."""
        return Spread(tuple(load.throughput for load in self.loads[name]))


class Bench:
    """One run of the benchmark; at its end every server is stopped.

    A server is started when it is first asked for and stays: one that nobody asks uses no core.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan = plan
        self.folder = folder
        self.in_process = InProcess(plan)
        self._stack = ExitStack()
        self._servers: dict[str, Server] = {}
        self._saturations: dict[tuple[str, ...], Saturation] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    @property
    def mixed(self) -> list[ImageRequest]:
        """The requests of one saturation repeat."""
        return mixed(self.plan.requests, seed=self.plan.seed, steps=self.plan.steps)

    def references(self, requests: Sequence[ImageRequest]) -> References:
        """diffusers' own pictures of them."""
        number = len(list(self.folder.glob("references-*.npz")))
        return self.in_process.references(requests, self.folder / f"references-{number}.npz")

    def server(self, name: str, *, clients: int | None = None) -> Server:
        """The service or a peer, ready and warm. Raises Broken, ServiceDidNotStart."""
        if name not in self._servers:
            server = self._stack.enter_context(self.fresh(name))
            self.warm(server, clients=clients)
            self._servers[name] = server
        return self._servers[name]

    def fresh(self, name: str = QUICKFIX) -> AbstractContextManager[Server]:
        """One of its own, for a measurement that must not find what others left."""
        _log.info("starting %s", name)
        return start(name, self.folder, self.plan)

    def warm(self, server: Server, *, clients: int | None = None) -> None:
        """Half a saturation repeat: BentoML's batching measures itself on its first requests."""
        requests = self.mixed[: max(1, self.plan.requests // 2)]
        references = self.references(requests)
        clients = clients or self.plan.clients
        closed_loop(server.url, requests, clients=clients, references=references)

    def saturation(self, *names: str) -> Saturation:
        """Throughput of these servers in one run; measured once. Raises Broken."""
        known = (s for names_of, s in self._saturations.items() if set(names) <= set(names_of))
        found = next(known, None)
        if found is None:
            found = self._saturations[names] = self._measure_saturation(names)
        return found

    def _measure_saturation(self, names: tuple[str, ...]) -> Saturation:
        requests = self.mixed
        references = self.references(requests)
        loads: dict[str, list[Load]] = {name: [] for name in names}
        idle_seconds = seconds = 0.0
        started = {name: self.server(name) for name in names}
        for _, name in in_turn(self.plan.repeats, names):
            others = [server for other, server in started.items() if other != name]
            before = sum(server.cpu_seconds for server in others)
            load = closed_loop(
                started[name].url, requests, clients=self.plan.clients, references=references
            )
            idle_seconds += sum(server.cpu_seconds for server in others) - before
            seconds += load.seconds
            loads[name].append(load)
        return Saturation(loads, idle_seconds / seconds)
