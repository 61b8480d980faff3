"""Progressive rollout: a revision on trial on some replicas, promoted or halted by itself.

The head stays where it is meanwhile. Every replica looks at the canaries' reports as often as at
the head, and the first that finds a reason ends the rollout, in one transaction with what follows.
A takedown is never held up by a rollout: an urgent change overtakes it.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal, NamedTuple

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from edits.errors import HeadMoved, RolloutOpen, RolloutRefused
from edits.store import audit, log, replicas
from edits.store.database import Database
from edits.store.fleet import standing
from edits.store.records import (
    AuditEvent,
    HeadPointer,
    ReplicaReport,
    Rollout,
    RolloutPlan,
    storable,
)
from edits.store.tables import head, revisions, rollouts

__all__ = ["Rollouts", "Verdict", "choose_canaries", "judge", "make_way", "pointer"]

_SWITCH_SECONDS = 60.0  # beyond the soak, until every canary must run the revision
_MAX_FAILED_SHARE = 0.01  # of the canaries' requests

Clock = Callable[[Connection], datetime]


class Verdict(NamedTuple):
    """How a rollout ends, and why."""

    outcome: Literal["promoted", "halted"]
    detail: str


def choose_canaries(
    reports: Sequence[ReplicaReport], plan: RolloutPlan, revision: int, now: datetime
) -> tuple[str, ...]:
    """The ids of a share of the live replicas: at least one, and of several never all.

    Another revision tries other replicas. Raises RolloutRefused when none lives.
    """
    live = [report.id for report in reports if standing(report, now) == "live"]
    if not live:
        raise RolloutRefused("no live replica could try the revision; start one, or activate it")
    live.sort(key=lambda identity: hashlib.sha256(f"{revision} {identity}".encode()).digest())
    wanted = math.ceil(round(plan.share * len(live), 6))  # 0.07 of 100 is 7, whatever floats say
    return tuple(sorted(live[: max(1, min(wanted, len(live) - 1))]))


def judge(
    rollout: Rollout, reports: Sequence[ReplicaReport], now: datetime, *, heard: bool = True
) -> Verdict | None:
    """The end of the rollout that the canaries' reports make necessary; None: it goes on.

    It is halted when a canary refuses the revision, is lost, does not switch in time, or when the
    model fails more than one of a hundred requests under it; promoted when its time is over and
    every canary runs it. `heard`: silence means something, the store was there all the time.
    """
    elapsed = (now - rollout.began_at).total_seconds() - rollout.plan.soak_seconds
    found = {report.id: report for report in reports}
    canaries = [found[identity] for identity in rollout.canaries if identity in found]
    lost = set(rollout.canaries) - {r.id for r in canaries if standing(r, now) == "live"}
    late = set(rollout.canaries) - {r.id for r in canaries if r.active_revision == rollout.revision}
    drawn = sum(report.drawn or 0 for report in canaries)
    failed = sum(report.failed or 0 for report in canaries)
    refused = [
        f"{report.id}: {report.last_error}"
        for report in canaries
        if report.last_error is not None and report.rejected_digest == rollout.digest
    ]
    if refused:
        return Verdict("halted", "; ".join(refused))
    if lost and heard:
        return Verdict("halted", f"lost: {', '.join(sorted(lost))}")
    if failed > _MAX_FAILED_SHARE * (drawn + failed):
        return Verdict("halted", f"the model failed {failed} of {drawn + failed} requests")
    if late and elapsed >= _SWITCH_SECONDS:
        return Verdict("halted", f"did not switch: {', '.join(sorted(late))}")
    if not late and not lost and elapsed >= 0:
        return Verdict("promoted", f"{len(canaries)} canaries, {drawn} images")
    return None


def pointer(connection: Connection) -> HeadPointer:
    """The head's number, below which revision requests are to start over, and the open rollout."""
    # One query as a rule, since a fleet asks it all the time: an open rollout is rare.
    query = select(head.c.number, head.c.restart_below, rollouts.c.id).select_from(
        head.outerjoin(rollouts, rollouts.c.ended_at.is_(None))
    )
    row = connection.execute(query).one()
    going_on = None if row.id is None else open_rollout(connection)
    return HeadPointer(row.number, row.restart_below, going_on)


def open_rollout(connection: Connection) -> Rollout | None:
    """The rollout that is going on."""
    return _newest(connection, only_open=True)


def make_way(connection: Connection, number: int, *, now: Clock, urgent: bool) -> None:
    """Called with the head locked, before it moves to `number`: what becomes of an open rollout.

    Its own revision is promoted; an urgent one supersedes it. Raises RolloutOpen for any other.
    """
    rollout = open_rollout(connection)
    if rollout is None or number == log.head_number(connection):
        return
    if number == rollout.revision:
        _end(connection, rollout, "promoted", "activated", now(connection))
    elif urgent:
        _end(connection, rollout, "superseded", f"by revision {number}", now(connection))
    else:
        raise RolloutOpen(
            f"revision {rollout.revision} is on trial on {len(rollout.canaries)} replicas; wait "
            "for its end, halt it, or make this change urgently, which overtakes it"
        )


class Rollouts:
    """The rollouts of one store. Every method is one transaction; thread-safe.

    Each raises StoreUnavailable when the database fails.
    """

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    def newest(self) -> Rollout | None:
        """The rollout that is going on, or else the last one."""
        with self._database.read() as connection:
            return _newest(connection)

    def begin(self, revision: int, plan: RolloutPlan, *, author: str, base: int) -> Rollout:
        """Put a published revision on trial beside the head, which must be `base`.

        The revision that is on trial already is left so. Raises RolloutOpen, RolloutRefused,
        RevisionNotFound, HeadMoved.
        """
        with self._database.write() as connection:
            current = log.locked_head(connection)
            now = self._now(connection)
            rollout = open_rollout(connection)
            if rollout is not None and rollout.revision == revision:
                return rollout
            if current != base:
                raise HeadMoved(
                    f"the head is revision {current}, but this rollout is based on revision "
                    f"{base}; read the head and begin anew",
                    expected=base,
                    actual=current,
                )
            digest = log.revision(connection, revision).digest
            if revision <= base:
                raise RolloutRefused(
                    f"revision {revision} is not newer than the head {base}: there is nothing to "
                    "try out",
                    param="canary",
                )
            if rollout is not None:
                make_way(connection, revision, now=self._now, urgent=False)
            canaries = choose_canaries(replicas.reports(connection), plan, revision, now)
            begun = Rollout(
                id=(connection.scalar(select(func.max(rollouts.c.id))) or 0) + 1,
                revision=revision,
                digest=digest,
                base=base,
                plan=plan,
                canaries=canaries,
                author=storable(author),
                began_at=now,
            )
            connection.execute(insert(rollouts).values(_values(begun)))
            replicas.forget_verdicts(connection, canaries)  # of an earlier rollout of this revision
            return begun

    def halt(self, reason: str) -> Rollout:
        """End the rollout; canaries go back to the head. Raises RolloutRefused without one."""
        with self._database.write() as connection:
            log.locked_head(connection)
            rollout = _required(open_rollout(connection))
            return _end(connection, rollout, "halted", reason, self._now(connection))

    def promote(self, reason: str) -> Rollout:
        """End the rollout by making its revision the head. Raises RolloutRefused."""
        with self._database.write() as connection:
            log.locked_head(connection)
            rollout = _required(open_rollout(connection))
            ended = _end(connection, rollout, "promoted", reason, self._now(connection))
            log.move_head(connection, rollout.revision)
            return ended

    def settle(self, *, by: str, heard: bool = True) -> Rollout | None:
        """End the rollout if there is a reason, and record it in the audit log as `by`'s doing.

        Returns the rollout that this call has ended; None: another one did, or it goes on.
        """
        with self._database.read() as connection:
            if self._verdict(connection, heard=heard) is None:
                return None
        with self._database.write() as connection:
            log.locked_head(connection)
            rollout, verdict = open_rollout(connection), self._verdict(connection, heard=heard)
            if rollout is None or verdict is None:
                return None
            now = self._now(connection)
            ended = _end(connection, rollout, verdict.outcome, verdict.detail, now)
            if verdict.outcome == "promoted":
                log.move_head(connection, rollout.revision)
            action = "promote_rollout" if verdict.outcome == "promoted" else "halt_rollout"
            event = AuditEvent(
                by, "replica", action, f"revision {rollout.revision}", "ok", verdict.detail
            )
            audit.append(connection, event, at=now)
            return ended

    def _verdict(self, connection: Connection, *, heard: bool) -> Verdict | None:
        rollout = open_rollout(connection)
        if rollout is None:
            return None
        return judge(rollout, replicas.reports(connection), self._now(connection), heard=heard)


def _required(rollout: Rollout | None) -> Rollout:
    if rollout is None:
        raise RolloutRefused("no revision is on trial; activate one as a canary first")
    return rollout


def _newest(connection: Connection, *, only_open: bool = False) -> Rollout | None:
    query = (
        select(rollouts, revisions.c.digest)
        .join(revisions, revisions.c.number == rollouts.c.revision)
        .order_by(rollouts.c.id.desc())
        .limit(1)
    )
    if only_open:
        query = query.where(rollouts.c.ended_at.is_(None))
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else _rollout(row)


def _rollout(row: RowMapping) -> Rollout:
    values = dict(row)
    plan = RolloutPlan(values.pop("share"), values.pop("soak_seconds"))
    canaries = tuple(json.loads(values.pop("canaries")))
    return Rollout(**values, plan=plan, canaries=canaries)


def _values(rollout: Rollout) -> dict[str, object]:
    return {
        "id": rollout.id,
        "revision": rollout.revision,
        "base": rollout.base,
        "share": rollout.plan.share,
        "soak_seconds": rollout.plan.soak_seconds,
        "canaries": json.dumps(rollout.canaries),
        "author": rollout.author,
        "began_at": rollout.began_at,
    }


def _end(
    connection: Connection,
    rollout: Rollout,
    outcome: Literal["promoted", "halted", "superseded"],
    detail: str,
    at: datetime,
) -> Rollout:
    ended = replace(rollout, ended_at=at, outcome=outcome, detail=storable(detail))
    connection.execute(
        update(rollouts)
        .where(rollouts.c.id == rollout.id)
        .values(ended_at=at, outcome=outcome, detail=ended.detail)
    )
    return ended
