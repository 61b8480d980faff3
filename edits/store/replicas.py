"""What every replica last said about itself."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from types import ModuleType

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from edits.store.records import ReplicaReport, storable
from edits.store.tables import replicas

_DIALECTS: dict[str, ModuleType] = {"postgresql": postgresql, "sqlite": sqlite}


def acknowledge(connection: Connection, report: ReplicaReport, *, at: datetime) -> ReplicaReport:
    """Keep the report in place of the replica's last one, dated by the store's clock."""
    error = None if report.last_error is None else storable(report.last_error)
    dated = replace(report, heartbeat_at=at, last_error=error)
    values = asdict(dated)
    upsert = _DIALECTS[connection.dialect.name].insert(replicas).values(values)
    connection.execute(upsert.on_conflict_do_update(index_elements=["id"], set_=values))
    return dated


def forget(connection: Connection, *, before: datetime) -> None:
    """Take out the replicas that were heard last before that: pods that are long gone."""
    connection.execute(delete(replicas).where(replicas.c.heartbeat_at < before))


def forget_verdicts(connection: Connection, ids: Sequence[str]) -> None:
    """Take out what replicas said of a set that they tried; they say it anew if it is still so."""
    cleared = {"rejected_digest": None, "drawn": None, "failed": None}
    connection.execute(update(replicas).where(replicas.c.id.in_(ids)).values(cleared))


def reports(connection: Connection) -> tuple[ReplicaReport, ...]:
    """The last report of every replica, sorted by id; old ones included."""
    rows = connection.execute(select(replicas).order_by(replicas.c.id)).mappings()
    return tuple(ReplicaReport(**row) for row in rows)
