"""What every replica last said about itself."""

from dataclasses import asdict, replace
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from edits.store.records import ReplicaReport, storable
from edits.store.tables import replicas


def acknowledge(connection: Connection, report: ReplicaReport, *, at: datetime) -> ReplicaReport:
    """Keep the report in place of the replica's last one, dated by the store's clock."""
    error = None if report.last_error is None else storable(report.last_error)
    dated = replace(report, heartbeat_at=at, last_error=error)
    values = asdict(dated)
    known = connection.execute(update(replicas).where(replicas.c.id == dated.id).values(values))
    if known.rowcount == 0:
        connection.execute(insert(replicas).values(values))
    return dated


def reports(connection: Connection) -> tuple[ReplicaReport, ...]:
    """The last report of every replica, sorted by id; old ones included."""
    rows = connection.execute(select(replicas).order_by(replicas.c.id)).mappings()
    return tuple(ReplicaReport(**row) for row in rows)
