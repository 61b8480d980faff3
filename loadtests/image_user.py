"""Who asks for images: one request, sent, checked and recorded; users of a closed loop."""

import time
from random import Random
from typing import Any

import gevent
from locust import FastHttpUser, constant, task
from locust.env import Environment

from loadtests.drawn import AnswerWrong, read_answer
from loadtests.options import RECORD, REPEATS
from loadtests.outcome import Sample

__all__ = ["ROUTE", "ClosedLoop", "ImageUser"]

ROUTE = "/v1/images/generations"
REPEAT_SHARE = 0.25
MAX_BACKOFF_SECONDS = 5
MAX_SEED = 2**31 - 1


class ImageUser(FastHttpUser):
    """Draws one image and checks all that the contract says of the answer."""

    abstract = True
    # A pool that is empty would make requests wait inside the generator, and close the loop.
    concurrency = 4096
    network_timeout = connection_timeout = 150.0
    settled = 0.1  # share of the run after which percentiles and goodput count
    _began: float | None = None  # of all users of this process, time.perf_counter()
    _users = 0

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        options = environment.parsed_options
        lines = options.prompts.read_text(encoding="utf-8").splitlines()
        self.prompts = [line for line in lines if line.strip()]
        self.size = options.size
        # Every user of its own seed, the same ones in every run.
        self.random = Random(f"{options.random_seed} {ImageUser._users}")
        ImageUser._users += 1

    def now(self) -> float:
        """Seconds since the first user of this process asked."""
        moment = time.perf_counter()
        if ImageUser._began is None:
            ImageUser._began = moment
        return moment - ImageUser._began

    def draw(self, intended: float) -> int:
        """One request; the seconds that its answer asks to stay away, 0 for an image."""
        prompt, seed = self.choose()
        body: dict[str, Any] = {"prompt": prompt, "seed": seed, "response_format": "b64_json"}
        if self.size:
            body["size"] = self.size
        acknowledged = RECORD.acknowledged
        sent = self.now()
        # Not entered as a context: what locust shall know is told below, once it is checked.
        answer = self.client.post(ROUTE, json=body, name=ROUTE, catch_response=True)
        ended = self.now()
        kind, pause = "drawn", 0
        try:
            if answer.status_code == 429:
                kind, pause = "refused", _retry_after(answer)
            else:
                self._check(prompt, seed, answer, acknowledged)
        except (AnswerWrong, ValueError) as wrong:
            kind = str(wrong)
        sample = Sample(intended, sent, ended, kind)
        RECORD.samples.append(sample)
        self._tell_locust(sample, answer)
        return pause

    def choose(self) -> tuple[str, int]:
        """An image that was drawn before in a share of all requests, else a new one."""
        again = REPEATS.again(self.random) if self.random.random() < REPEAT_SHARE else None
        return again or (self.random.choice(self.prompts), self.random.randrange(MAX_SEED))

    def _check(self, prompt: str, seed: int, answer: Any, acknowledged: int) -> None:
        if answer.status_code != 200:
            raise AnswerWrong(f"status {answer.status_code}")
        # A thread of its own: decoding a large PNG here would make the next arrival late.
        drawn = gevent.get_hub().threadpool.apply(
            read_answer, (prompt, seed, answer.headers, answer.json()), {"size": self.size}
        )
        REPEATS.check(drawn)
        RECORD.revisions.add(drawn.revision)
        if drawn.revision < acknowledged:
            raise AnswerWrong("an image of a revision that an acknowledged one had replaced")

    def _tell_locust(self, sample: Sample, answer: Any) -> None:
        """Two rows: from the intended moment, with the verdict, and the bare service time."""
        failed = sample.kind not in ("drawn", "refused")
        row = f"{ROUTE} 429" if sample.kind == "refused" else ROUTE
        meta = {**answer.request_meta, "exception": None}
        service = {"name": f"{row} service time", "response_time": _ms(sample.ended - sample.sent)}
        verdict = {"name": row, "response_time": _ms(sample.latency)}
        if failed:
            verdict["exception"] = AnswerWrong(sample.kind)
        self.environment.events.request.fire(**{**meta, **verdict})
        self.environment.events.request.fire(**{**meta, **service})


class ClosedLoop(ImageUser):
    """Asks again as soon as it is answered; a full queue is left alone for as long as it says."""

    abstract = True
    wait_time = constant(0)

    @task
    def draw_next(self) -> None:
        """One image after the other."""
        gevent.sleep(min(self.draw(self.now()), MAX_BACKOFF_SECONDS))


def _ms(seconds: float) -> float:
    return 1000 * seconds


def _retry_after(answer: Any) -> int:
    """The seconds of an honest 429. Raises AnswerWrong."""
    text = answer.headers.get("Retry-After", "")
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise AnswerWrong(f"429 without a usable Retry-After: {text!r}")
    return int(text)
