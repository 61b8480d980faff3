"""A service that runs signed sets only, and the one person who signs them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from edits.manifests import RevisionContent
from edits.manifests.signing import SigningKey, sign
from edits.manifests.statement import RevisionStatement
from tests.service.live import LiveService, serve


@dataclass(frozen=True)
class SignedService:
    """The running service and its trusted key."""

    live: LiveService
    key: SigningKey

    @classmethod
    @contextmanager
    def start(cls, model: Path, folder: Path) -> Iterator[Self]:
        """Still loading; not ready until a set is published."""
        key = SigningKey.generate()
        trusted = folder / "trusted.yaml"
        trusted.write_text(
            json.dumps({"threshold": 1, "keys": [{"name": "alice", "public": key.public}]}),
            encoding="utf-8",
        )
        environ = {"QUICKFIX_TRUSTED_KEYS": str(trusted)}
        with serve(model, folder / "service", environ=environ, wait=False) as live:
            yield cls(live, key)

    def publish(self, sequence: int, expires_in: timedelta) -> None:
        """Sign and publish the empty set."""
        content = RevisionContent()
        moment = (datetime.now(UTC) + expires_in).replace(microsecond=0)
        envelope = sign(RevisionStatement(sequence, content.digest(), moment), (self.key,))
        body = {
            "revision": json.loads(content.canonical_bytes()),
            "envelope": json.loads(envelope),
        }
        with self.live.client(headers=self.live.operator) as admin:
            answer = admin.post("/admin/revisions", json=body)
            assert answer.status_code == 201, answer.text
