"""Progressive rollout: which revision is on trial on which replicas, and how it ended."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_MOMENT = sa.DateTime(timezone=True)
_ENDED = "OLD.ended_at IS NOT NULL"


def upgrade() -> None:
    """Add the table, the counts that replicas report, and the triggers of the database at hand."""
    op.add_column("replicas", sa.Column("drawn", sa.Integer))
    op.add_column("replicas", sa.Column("failed", sa.Integer))
    op.create_table(
        "rollouts",
        sa.Column("id", sa.Integer, autoincrement=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("base", sa.Integer, nullable=False),
        sa.Column("share", sa.Float, nullable=False),
        sa.Column("soak_seconds", sa.Float, nullable=False),
        sa.Column("canaries", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("began_at", _MOMENT, nullable=False),
        sa.Column("ended_at", _MOMENT),
        sa.Column("outcome", sa.String(16)),
        sa.Column("detail", sa.Text),
        sa.PrimaryKeyConstraint("id", name="pk_rollouts"),
        sa.ForeignKeyConstraint(["revision"], ["revisions.number"], name="fk_rollouts_revision"),
        sa.ForeignKeyConstraint(["base"], ["revisions.number"], name="fk_rollouts_base"),
    )
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _sqlite_triggers() if on_sqlite else _postgresql_triggers():
        op.execute(statement)


def _sqlite_triggers() -> list[str]:
    """A trial ends once, and the record of it stays."""
    refusal = "SELECT RAISE(ABORT, 'rollouts is append-only')"
    exists = "EXISTS (SELECT 1 FROM rollouts WHERE id = NEW.id)"
    return [
        f"CREATE TRIGGER rollouts_end_once BEFORE UPDATE ON rollouts WHEN {_ENDED} "
        f"BEGIN {refusal}; END",
        f"CREATE TRIGGER rollouts_no_delete BEFORE DELETE ON rollouts BEGIN {refusal}; END",
        "CREATE TRIGGER rollouts_no_replace BEFORE INSERT ON rollouts "
        f"WHEN {exists} BEGIN {refusal}; END",
    ]


def _postgresql_triggers() -> list[str]:
    return [
        f"CREATE TRIGGER rollouts_end_once BEFORE UPDATE ON rollouts FOR EACH ROW WHEN ({_ENDED}) "
        "EXECUTE FUNCTION quickfix_append_only()",
        "CREATE TRIGGER rollouts_append_only BEFORE DELETE OR TRUNCATE ON rollouts "
        "FOR EACH STATEMENT EXECUTE FUNCTION quickfix_append_only()",
        # On the channel of the head: replicas look at both when they hear of either.
        "CREATE FUNCTION quickfix_notify_rollout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "PERFORM pg_notify('quickfix_head', NEW.revision::text); RETURN NULL; END $$",
        "CREATE TRIGGER rollouts_notify AFTER INSERT OR UPDATE ON rollouts FOR EACH ROW "
        "EXECUTE FUNCTION quickfix_notify_rollout()",
    ]
