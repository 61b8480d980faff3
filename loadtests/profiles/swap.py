"""60 % of saturation while a revision is activated every 2 s, on one replica.

No request fails, every image is of one revision, and none that was asked for after an activation
had been answered is of an older one. Most are of what the edit changes, from a few seeds, so that
each is drawn again and again under both digests: a picture of the other one would be seen.
"""

import itertools
from typing import Any

import gevent

from loadtests.open_loop import OpenLoop
from loadtests.options import RECORD
from loadtests.outcome import Sample

PERIOD_SECONDS = 2.0
NAME = "load-test-swap"
CONCEPT = "pistol"
MANIFEST: dict[str, Any] = {
    "apiVersion": "quickfix/v1",
    "kind": "ConceptEdit",
    "metadata": {"name": NAME, "version": 1, "reason": "load test"},
    "spec": {"concept": CONCEPT, "anchor": "toy", "type": "object"},
}
EDITED_SHARE = 0.8
SEEDS = 3


class Swap(OpenLoop):
    """An edit is published once; then it goes and comes back by roll backs."""

    share = 0.6

    def on_start(self) -> None:
        """Two revisions to switch between."""
        super().on_start()
        token = self.environment.parsed_options.token_file.read_text(encoding="utf-8").strip()
        self.headers = {"Authorization": f"Bearer {token}"}
        without = self._ask("GET", "/admin/status")["head"]["revision"]
        self.targets = (without, self._ask("POST", "/admin/edits", json=MANIFEST)["revision"])
        self.operator = gevent.spawn(self._activate_in_turn)

    def choose(self) -> tuple[str, int]:
        """What the edit changes, in most cases."""
        if self.random.random() >= EDITED_SHARE:
            return super().choose()
        named = [prompt for prompt in self.prompts if CONCEPT in prompt]
        prompt = self.random.choice(named or [f"a photo of a {CONCEPT}"])
        return prompt, self.random.randrange(SEEDS)

    def on_stop(self) -> None:
        """Leave the service without the edit."""
        self.operator.join()
        self._ask("POST", "/admin/rollback", json={"to": self.targets[0]})

    def _activate_in_turn(self) -> None:
        for turn in itertools.count(1):
            intended = turn * PERIOD_SECONDS
            if intended >= self.seconds:
                return
            gevent.sleep(max(0.0, intended - self.now()))
            sent = self.now()
            kind = "activated"
            try:
                answer = self._ask(
                    "POST", "/admin/rollback", json={"to": self.targets[(turn + 1) % 2]}
                )
                RECORD.acknowledged = answer["revision"]
            except RuntimeError as wrong:
                kind = str(wrong)
            RECORD.activations.append(Sample(intended, sent, self.now(), kind))

    def _ask(self, method: str, path: str, **options: Any) -> Any:
        """The answer's body. Raises RuntimeError unless this replica did what was asked.

        202 is published and not activated in time.
        """
        answer = self.client.request(
            method, path, headers=self.headers, catch_response=True, **options
        )
        wrong = answer.status_code not in (200, 201)
        meta = {**answer.request_meta, "exception": None}
        if wrong:
            meta["exception"] = RuntimeError(f"{method} {path}: status {answer.status_code}")
        self.environment.events.request.fire(**meta)
        if wrong:
            raise meta["exception"]
        return answer.json()
