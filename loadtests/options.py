"""What a profile is told on locust's command line, and the verdict that it ends with."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from locust import events
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment

from loadtests.drawn import Repeats
from loadtests.outcome import Record
from loadtests.thresholds import MAX_PIXEL_DIFFERENCE, THRESHOLDS, Baseline

__all__ = ["RECORD", "REPEATS"]

_log = logging.getLogger("loadtest")

RECORD = Record()
REPEATS = Repeats(max_difference=MAX_PIXEL_DIFFERENCE)
_PROMPTS = Path(__file__).with_name("prompts.txt")


class _Process:
    """Wall and CPU time of this process since the run began."""

    wall = cpu = 0.0


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser, **_: Any) -> None:
    """Options beside locust's own."""
    add = parser.add_argument
    add("--prompts", type=Path, default=_PROMPTS, help="One prompt a line, short enough.")
    add("--size", default="", help="WIDTHxHEIGHT that is asked for and checked.")
    add("--random-seed", type=int, default=7, help="Of arrivals, prompts and seeds.")
    add("--saturation", type=float, help="Images per second at most, as measured.")
    add("--unloaded-ms", type=float, help="Latency of one client alone, as measured.")
    add("--token-file", type=Path, help="Operator token, for profiles that activate.")
    add("--outcome", type=Path, help="Where the figures go, as JSON.")


@events.test_start.add_listener
def start(**_: Any) -> None:
    """Both clocks start with the load."""
    _Process.wall, _Process.cpu = time.perf_counter(), time.process_time()


@events.quitting.add_listener
def give_verdict(environment: Environment, **_: Any) -> None:
    """Exit code 1 on any breach, 0 otherwise."""
    (profile,) = environment.user_classes
    options = environment.parsed_options
    name = profile.__name__.lower()
    seconds = float(options.run_time)
    wall = time.perf_counter() - _Process.wall
    outcome = RECORD.outcome(
        name,
        seconds=seconds,
        settled=profile.settled * seconds,
        compared=REPEATS.compared,
        told_apart=REPEATS.told_apart,
        generator_cpu=(time.process_time() - _Process.cpu) / wall,
    )
    baseline = Baseline(unloaded_ms=options.unloaded_ms, saturation=options.saturation)
    breaches = list(THRESHOLDS[name].breaches(outcome, baseline))
    for breach in breaches:
        _log.error("breach: %s", breach)
    if options.outcome is not None:
        document = {**outcome.document(), "breaches": breaches}
        options.outcome.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    environment.process_exit_code = 1 if breaches else 0
