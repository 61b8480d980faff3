"""Closed-loop users of the images route; every answer is checked, thresholds decide the exit code.

locust -f loadtests/locustfile.py --headless -u 4 -r 4 -t 20s --host http://127.0.0.1:3000

Knows the HTTP contract only: it imports nothing of the service, so it runs against any replica.
"""

import logging
import random
import time
from pathlib import Path
from typing import Any

from drawn import AnswerWrong, Repeats, read_answer
from locust import HttpUser, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from thresholds import THRESHOLDS, Outcome

_log = logging.getLogger("loadtest")

ROUTE = "/v1/images/generations"
REFUSED = f"{ROUTE} 429"  # its own row in locust's table
SEEDS = 8
REPEAT_SHARE = 0.3
MAX_BACKOFF_SECONDS = 5

repeats = Repeats()


@events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser, **_: Any) -> None:
    """`--prompts FILE`: one prompt a line, short enough for the model."""
    parser.add_argument("--prompts", default=str(Path(__file__).with_name("prompts.txt")))


class ImageUser(HttpUser):
    """Asks for one image after the other, and now and then for its last one again."""

    wait_time = constant(0)

    def on_start(self) -> None:
        lines = Path(self.environment.parsed_options.prompts).read_text(encoding="utf-8")
        self.prompts = [line for line in lines.splitlines() if line.strip()]
        self.random = random.Random(id(self))
        self.last: tuple[str, int] | None = None

    @task
    def draw(self) -> None:
        if self.last is None or self.random.random() > REPEAT_SHARE:
            self.last = self.random.choice(self.prompts), self.random.randrange(SEEDS)
        prompt, seed = self.last
        body = {"prompt": prompt, "seed": seed, "n": 1, "response_format": "b64_json"}
        with self.client.post(ROUTE, json=body, name=ROUTE, catch_response=True) as answer:
            if answer.status_code == 429:
                pause = _retry_after(answer)
            else:
                pause = 0
                _check(prompt, seed, answer)
        time.sleep(pause)  # locust makes it a switch of greenlets


def _retry_after(answer: Any) -> int:
    """Count an honest 429 apart from images and failures; the seconds to stay away."""
    seconds = answer.headers.get("Retry-After", "")
    if not seconds.isdigit() or int(seconds) < 1:
        answer.failure(f"429 without a usable Retry-After: {seconds!r}")
        return 1
    answer.request_meta["name"] = REFUSED
    answer.success()
    return min(int(seconds), MAX_BACKOFF_SECONDS)


def _check(prompt: str, seed: int, answer: Any) -> None:
    if answer.status_code != 200:
        answer.failure(f"status {answer.status_code}")
        return
    try:
        repeats.check(read_answer(prompt, seed, answer.headers, answer.json()))
    except (AnswerWrong, ValueError) as wrong:
        answer.failure(str(wrong))
    else:
        answer.success()


@events.quitting.add_listener
def give_verdict(environment: Environment, **_: Any) -> None:
    """Exit code 1 on any breach, 0 otherwise."""
    stats = environment.stats
    images, refused = stats.get(ROUTE, "POST"), stats.get(REFUSED, "POST")
    outcome = Outcome(
        images=images.num_requests - images.num_failures,
        refused=refused.num_requests,
        failures=stats.total.num_failures,
        p95_ms=images.get_response_time_percentile(0.95) or 0.0,
    )
    breaches = list(THRESHOLDS.breaches(outcome))
    for breach in breaches:
        _log.error("breach: %s", breach)
    _log.info("%s, %d different images", outcome, len(repeats))
    environment.process_exit_code = 1 if breaches else 0
