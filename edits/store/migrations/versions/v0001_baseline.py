"""Revision log, head, signatures, replicas, artefacts, audit chain; append-only by triggers."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_DIGEST = sa.String(71)
_MOMENT = sa.DateTime(timezone=True)
_NO_ENTRY_HASH = "sha256:" + "0" * 64


def upgrade() -> None:
    """Create the schema with an empty log and no head."""
    op.create_table(
        "revisions",
        sa.Column("number", sa.Integer, autoincrement=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("parent", sa.Integer),
        sa.Column("expires_at", _MOMENT),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("number", name="pk_revisions"),
        sa.ForeignKeyConstraint(["parent"], ["revisions.number"], name="fk_revisions_parent"),
    )
    op.create_table(
        "signatures",
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("key_id", sa.String(128), nullable=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("revision", "key_id", name="pk_signatures"),
        sa.ForeignKeyConstraint(["revision"], ["revisions.number"], name="fk_signatures_revision"),
    )
    head = op.create_table(
        "head",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("number", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="pk_head"),
        sa.CheckConstraint("id = 1", name="ck_head_single_row"),
        sa.ForeignKeyConstraint(["number"], ["revisions.number"], name="fk_head_number"),
    )
    op.create_table(
        "replicas",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("heartbeat_at", _MOMENT, nullable=False),
        sa.Column("active_revision", sa.Integer),
        sa.Column("active_digest", _DIGEST),
        sa.Column("wanted_revision", sa.Integer),
        sa.Column("last_error", sa.Text),
        sa.Column("last_error_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_replicas"),
    )
    op.create_table(
        "artefacts",
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("media_type", sa.String(255), nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_artefacts"),
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer, autoincrement=False),
        sa.Column("at", sa.String(32), nullable=False),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in ("actor", "role", "action", "target", "outcome", "detail")
        ),
        sa.Column("previous_hash", _DIGEST, nullable=False),
        sa.Column("hash", _DIGEST, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    audit_tip = op.create_table(
        "audit_tip",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("entry", sa.Integer, nullable=False),
        sa.Column("hash", _DIGEST, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_tip"),
        sa.CheckConstraint("id = 1", name="ck_audit_tip_single_row"),
    )
    op.bulk_insert(head, [{"id": 1, "number": None}])
    op.bulk_insert(audit_tip, [{"id": 1, "entry": 0, "hash": _NO_ENTRY_HASH}])
    if op.get_bind().dialect.name == "sqlite":
        for statement in _sqlite_triggers():
            op.execute(statement)


def _sqlite_triggers() -> list[str]:
    """What no program may do to the log, also not one that bypasses this library."""
    triggers = []
    for table, key in {
        "revisions": "number = NEW.number",
        "signatures": "revision = NEW.revision AND key_id = NEW.key_id",
        "artefacts": "digest = NEW.digest",
        "audit": "id = NEW.id",
    }.items():
        refusal = f"SELECT RAISE(ABORT, '{table} is append-only')"
        exists = f"EXISTS (SELECT 1 FROM {table} WHERE {key})"  # noqa: S608  names from above
        triggers += [
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table} BEGIN {refusal}; END",
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} BEGIN {refusal}; END",
            # INSERT OR REPLACE deletes the old row without firing the trigger for deletes.
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} WHEN {exists} "
            f"BEGIN {refusal}; END",
        ]
    for table, column in {"head": "number", "audit_tip": "entry"}.items():
        refusal = f"SELECT RAISE(ABORT, '{table} only moves forward')"
        triggers += [
            f"CREATE TRIGGER {table}_forward BEFORE UPDATE ON {table} "
            f"WHEN NEW.{column} IS NULL OR NEW.{column} <= OLD.{column} BEGIN {refusal}; END",
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} BEGIN {refusal}; END",
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} BEGIN {refusal}; END",
        ]
    return triggers
