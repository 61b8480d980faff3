"""The one SQL schema, for SQLite and PostgreSQL alike.

`revisions`, `envelopes` and `audit` only ever grow; `head` and `audit_tip` hold one row each and
point at the newest entry that counts; a row of `rollouts` changes once, when it ends. The
migrations create all of this; a test keeps both equal.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)

DIGEST_LENGTH = 71  # "sha256:" and 64 hexadecimal digits

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in time: aware on the way in, UTC on the way out, also where SQL keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC. Raises ValueError for a naive datetime: its meaning would be a guess."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone; the store keeps moments in UTC")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """As UTC; SQLite answers without a zone what was written in UTC."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


revisions = Table(
    "revisions",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("content", LargeBinary, nullable=False),
    Column("digest", String(DIGEST_LENGTH), nullable=False),
    Column("parent", Integer, ForeignKey("revisions.number")),
    Column("expires_at", UtcDateTime),
    Column("author", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

envelopes = Table(
    "envelopes",
    metadata,
    Column(
        "revision", Integer, ForeignKey("revisions.number"), primary_key=True, autoincrement=False
    ),
    Column("envelope", LargeBinary, nullable=False),
)

head = Table(
    "head",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="single_row"), primary_key=True),
    Column("number", Integer, ForeignKey("revisions.number")),
    # Requests that run under a lower revision are to start over: an urgent activation raises it.
    Column("restart_below", Integer, nullable=False, server_default="0"),
)

replicas = Table(
    "replicas",
    metadata,
    Column("id", String(255), primary_key=True),
    Column("host", Text, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("heartbeat_at", UtcDateTime, nullable=False),
    # No foreign keys: a replica reports what it runs, even when that is not what it should be.
    Column("active_revision", Integer),
    Column("active_digest", String(DIGEST_LENGTH)),
    Column("wanted_revision", Integer),
    Column("last_error", Text),
    Column("last_error_at", UtcDateTime),
    # The lowest revision that a request still runs under, if it is below the active one.
    Column("oldest_running", Integer),
    Column("lease_seconds", Float),  # it serves no longer than this without the store
    Column("rejected_digest", String(DIGEST_LENGTH)),  # of the set that it cannot run
    Column("stopped_at", UtcDateTime),
    # Of a canary: images under the revision on trial, and requests for one that the model failed.
    Column("drawn", Integer),
    Column("failed", Integer),
)

rollouts = Table(
    "rollouts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("revision", Integer, ForeignKey("revisions.number"), nullable=False),
    Column("base", Integer, ForeignKey("revisions.number"), nullable=False),
    Column("share", Float, nullable=False),
    Column("soak_seconds", Float, nullable=False),
    Column("canaries", Text, nullable=False),  # a JSON array of replica ids
    Column("author", Text, nullable=False),
    Column("began_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("outcome", String(16)),
    Column("detail", Text),
)

artefacts = Table(
    "artefacts",
    metadata,
    Column("digest", String(DIGEST_LENGTH), primary_key=True),
    Column("media_type", String(255), nullable=False),
    Column("content", LargeBinary, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    # ISO 8601 text, not a moment: the hash covers what is stored, on every database the same.
    Column("at", String(32), nullable=False),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("previous_hash", String(DIGEST_LENGTH), nullable=False),
    Column("hash", String(DIGEST_LENGTH), nullable=False),
)

# The chain alone cannot show that its last rows were cut off; this row remembers where it ended.
audit_tip = Table(
    "audit_tip",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="single_row"), primary_key=True),
    Column("entry", Integer, nullable=False),
    Column("hash", String(DIGEST_LENGTH), nullable=False),
)
