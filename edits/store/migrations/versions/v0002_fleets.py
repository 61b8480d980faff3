"""Fleets: PostgreSQL's triggers and notice of a new head, what a fence needs, signed sets."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_APPEND_ONLY = ("revisions", "envelopes", "artefacts", "audit")
_FORWARD = {
    "head": "NEW.number IS NULL OR NEW.number < OLD.number "
    "OR NEW.restart_below < OLD.restart_below "
    "OR (NEW.number = OLD.number AND NEW.restart_below = OLD.restart_below)",
    "audit_tip": "NEW.entry IS NULL OR NEW.entry <= OLD.entry",
}


def upgrade() -> None:
    """Add the columns, then the triggers of the database at hand."""
    op.add_column("replicas", sa.Column("oldest_running", sa.Integer))
    op.add_column("replicas", sa.Column("lease_seconds", sa.Float))
    op.add_column("replicas", sa.Column("rejected_digest", sa.String(71)))
    op.add_column("replicas", sa.Column("stopped_at", sa.DateTime(timezone=True)))
    op.add_column(
        "head", sa.Column("restart_below", sa.Integer, nullable=False, server_default="0")
    )
    # One envelope holds all signatures of a set; nothing ever wrote to the table of single ones.
    op.drop_table("signatures")
    op.create_table(
        "envelopes",
        sa.Column("revision", sa.Integer, autoincrement=False),
        sa.Column("envelope", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("revision", name="pk_envelopes"),
        sa.ForeignKeyConstraint(["revision"], ["revisions.number"], name="fk_envelopes_revision"),
    )
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _sqlite_triggers() if on_sqlite else _postgresql_triggers():
        op.execute(statement)


def _sqlite_triggers() -> list[str]:
    """The head may be urged to the same number once more; an envelope stays as it is."""
    refusal = "SELECT RAISE(ABORT, 'envelopes is append-only')"
    exists = "EXISTS (SELECT 1 FROM envelopes WHERE revision = NEW.revision)"
    return [
        "DROP TRIGGER head_forward",
        f"CREATE TRIGGER head_forward BEFORE UPDATE ON head WHEN {_FORWARD['head']} "
        "BEGIN SELECT RAISE(ABORT, 'head only moves forward'); END",
        f"CREATE TRIGGER envelopes_no_update BEFORE UPDATE ON envelopes BEGIN {refusal}; END",
        f"CREATE TRIGGER envelopes_no_delete BEFORE DELETE ON envelopes BEGIN {refusal}; END",
        "CREATE TRIGGER envelopes_no_replace BEFORE INSERT ON envelopes "
        f"WHEN {exists} BEGIN {refusal}; END",
    ]


def _postgresql_triggers() -> list[str]:
    """What no program may do to the log, also not one that bypasses this library."""
    statements = []
    for name, words in {"append_only": "is append-only", "forward": "only moves forward"}.items():
        statements.append(
            f"CREATE FUNCTION quickfix_{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"RAISE EXCEPTION '% {words}', TG_TABLE_NAME "
            "USING ERRCODE = 'integrity_constraint_violation'; END $$"
        )
    statements += [
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION quickfix_append_only()"
        for table in _APPEND_ONLY
    ]
    for table, backward in _FORWARD.items():
        statements += [
            f"CREATE TRIGGER {table}_forward BEFORE UPDATE ON {table} FOR EACH ROW "
            f"WHEN ({backward}) EXECUTE FUNCTION quickfix_forward()",
            f"CREATE TRIGGER {table}_stays BEFORE INSERT OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION quickfix_forward()",
        ]
    # Delivered when the transaction commits, to whoever listens; postgresql.HEAD_CHANNEL.
    statements += [
        "CREATE FUNCTION quickfix_notify_head() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM pg_notify('quickfix_head', NEW.number::text); RETURN NULL; END $$",
        "CREATE TRIGGER head_notify AFTER UPDATE ON head FOR EACH ROW "
        "EXECUTE FUNCTION quickfix_notify_head()",
    ]
    return statements
