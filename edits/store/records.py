"""What goes into the store and comes out of it, as frozen values."""

import re
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal, Self

from edits.errors import RolloutRefused
from edits.manifests import RevisionContent

SOAK_SECONDS = 300.0  # of a rollout, where nothing else is asked
MAX_SOAK_SECONDS = 7 * 86400.0

_ANCHOR = re.compile(r"([1-9][0-9]{0,17}):(sha256:[0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class RevisionRecord:
    """One line of the revision log, without its content. `parent` was the head at that moment.

    `expires_at` is what the signatures of a signed set say; nobody has verified it here.
    """

    number: int
    digest: str
    author: str
    reason: str
    created_at: datetime
    parent: int | None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision(RevisionRecord):
    """A revision whose stored bytes have been checked against `digest`."""

    content: RevisionContent


@dataclass(frozen=True, slots=True)
class SignedBy:
    """The envelope of a set's signatures, and when they expire; verified by whoever runs it."""

    envelope: bytes
    expires: datetime


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """How a rollout begins: on which share of the live replicas, between 0 and 1, for how long.

    Raises RolloutRefused for what is neither a part of a fleet nor a time.
    """

    share: float
    soak_seconds: float

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise RolloutRefused(
                f"the share of canaries is {self.share:g}; give a number between 0 and 1, "
                "without it the revision goes to all replicas",
                param="canary",
            )
        if not 0 <= self.soak_seconds <= MAX_SOAK_SECONDS:
            raise RolloutRefused(
                f"a soak of {self.soak_seconds:g} s; give 0 to {MAX_SOAK_SECONDS:g}", param="soak"
            )


@dataclass(frozen=True, slots=True)
class Rollout:
    """A revision on trial: its canaries run it, all others run the head, `base` when it began."""

    id: int
    revision: int
    digest: str
    base: int
    plan: RolloutPlan
    canaries: tuple[str, ...]  # replica ids, chosen once
    author: str
    began_at: datetime
    ended_at: datetime | None = None
    outcome: Literal["promoted", "halted", "superseded"] | None = None
    detail: str | None = None

    def document(self) -> dict[str, object]:
        """The rollout as plain values."""
        return {
            "revision": self.revision,
            "digest": self.digest,
            "base": self.base,
            "share": self.plan.share,
            "soak_seconds": self.plan.soak_seconds,
            "canaries": list(self.canaries),
            "author": self.author,
            "began_at": self.began_at.isoformat(),
            "ended_at": None if self.ended_at is None else self.ended_at.isoformat(),
            "outcome": self.outcome,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class HeadPointer:
    """The head without its content: the cheap answer to poll for.

    Requests that run under a revision below `restart_below` are to start over. `rollout` is the
    rollout that is going on.
    """

    number: int | None
    restart_below: int = 0
    rollout: Rollout | None = None

    def on_trial(self, replica: str) -> bool:
        """Whether that replica is a canary of the rollout."""
        return self.rollout is not None and replica in self.rollout.canaries

    def wanted(self, replica: str) -> int | None:
        """The revision that a replica must run: the head, or as a canary the one on trial."""
        if self.rollout is not None and self.on_trial(replica):
            return self.rollout.revision
        return self.number


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """What a replica says about itself. The store sets `heartbeat_at` when it takes the report.

    `oldest_running` is the lowest revision that a request still runs under, where that is below
    the active one. `lease_seconds`: without the store it serves no longer than this.
    `rejected_digest` is that of the set which `last_error` is about. `drawn` and `failed` are what
    a canary counts under the revision on trial: images, and requests that the model failed.
    """

    id: str
    host: str
    started_at: datetime
    active_revision: int | None = None
    active_digest: str | None = None
    wanted_revision: int | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    heartbeat_at: datetime | None = None
    oldest_running: int | None = None
    lease_seconds: float | None = None
    rejected_digest: str | None = None
    stopped_at: datetime | None = None
    drawn: int | None = None
    failed: int | None = None


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Who (in which role) did what to which target, and how it ended."""

    actor: str
    role: str
    action: str
    target: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An event as recorded: numbered, dated, and chained to the entry before it by `hash`."""

    id: int
    at: datetime
    event: AuditEvent
    previous_hash: str
    hash: str

    def document(self) -> dict[str, object]:
        """The entry as plain values."""
        event = self.event
        return {
            "id": self.id,
            "at": self.at.isoformat(),
            "actor": event.actor,
            "role": event.role,
            "action": event.action,
            "target": event.target,
            "outcome": event.outcome,
            "detail": event.detail,
            "hash": self.hash,
        }


@dataclass(frozen=True, slots=True)
class Anchor:
    """A place in the audit chain, to be noted outside the database: an entry and its hash."""

    entry: int
    hash: str

    def __str__(self) -> str:
        return f"{self.entry}:{self.hash}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `str` wrote, `12:sha256:...`. Raises ValueError."""
        match = _ANCHOR.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r:.100} is no anchor; write it as ID:HASH, as 12:sha256: and 64 digits"
            )
        return cls(int(match[1]), match[2])


@dataclass(frozen=True, slots=True)
class BrokenLink:
    """The first entry of the audit chain that is not as it was recorded, and what shows it.

    `altered`: its fields do not fit its hash. `missing`: it is gone from the middle. `inserted`:
    it was never recorded. `replaced`: it fits its hash, and not its neighbours, the recorded end
    or an anchor. `cut_off`: it and all after it are gone.
    """

    entry: int
    kind: Literal["altered", "missing", "inserted", "replaced", "cut_off"]
    reason: str


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """How far the audit chain holds, and where it is broken; None: nowhere."""

    last: Anchor  # the entry up to which every link holds; number 0 when none does
    broken: BrokenLink | None

    def document(self) -> dict[str, object]:
        """The verdict as plain values; `last`, of a chain that holds, is an anchor to note."""
        return {
            "holds": self.broken is None,
            "entries": self.last.entry,  # up to the broken one, where there is one
            "last": str(self.last) if self.last.entry and self.broken is None else None,
            "broken": None if self.broken is None else asdict(self.broken),
        }


def storable(text: str) -> str:
    """`text` with what SQL text cannot hold (NUL, unpaired surrogates) written as an escape.

    A refused call may carry any bytes, and that it was refused must still be recorded.
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
