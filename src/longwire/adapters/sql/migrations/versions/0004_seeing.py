"""What seeing needs: past connections, what belongs to a trace, people, directives; messages are found by their id."""

import sqlalchemy as sa
from alembic import op

from longwire.adapters.sql.column_types import Flag, Serial, key, name

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TURNED = (
    ("messages", "uq_messages_sender_message", "uq_messages_message_sender", ["message_id", "sender_no"]),
    ("uplink", "uq_uplink_device_message", "uq_uplink_message_device", ["message_id", "device_no"]),
)


def upgrade() -> None:
    _seeing()
    _directives()
    _people()
    for table, old, new, columns in _TURNED:
        # SQLite can only copy the table; the others have the new key before they lose the old one.
        with op.batch_alter_table(table) as change:
            if table == "messages":
                change.add_column(sa.Column("receivers", sa.LargeBinary(8_256), nullable=True))
            change.create_unique_constraint(new, columns)
            change.drop_constraint(old, type_="unique")
    op.create_index("ix_audit_request", "audit", ["request_id"])


def _seeing() -> None:
    op.create_table(
        "past_sessions",
        sa.Column("device_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("epoch", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("began_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("node_id", name(24), nullable=False),
        sa.Column("transport", name(16), nullable=False),
        sa.Column("close_code", sa.SmallInteger(), nullable=True),
        sa.PrimaryKeyConstraint("device_no", "epoch"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_past_sessions_ended_at_ms", "past_sessions", ["ended_at_ms"])
    op.create_table(
        "trace_refs",
        sa.Column("trace_id", key(16), nullable=False),
        sa.Column("kind", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("ref", key(16), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("trace_id", "kind", "ref"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_trace_refs_at_ms", "trace_refs", ["at_ms"])
    op.create_table(
        "push_minutes",
        sa.Column("push_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("minute", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("written", sa.Integer(), server_default="0", nullable=False),
        sa.Column("acked", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("push_no", "minute"),
        sqlite_with_rowid=False,
    )


def _directives() -> None:
    op.create_table(
        "directives",
        sa.Column("directive_no", Serial, autoincrement=True, nullable=False),
        sa.Column("kind", name(16), nullable=False),
        sa.Column("name", name(128), nullable=False),
        sa.Column("value", name(32), nullable=False),
        sa.Column("caller", name(64), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("directive_no"),
        sa.UniqueConstraint("kind", "name", name="uq_directives_kind_name"),
    )
    op.create_index("ix_directives_until_ms", "directives", ["until_ms"])
    _lock("directives")


def _people() -> None:
    op.create_table(
        "people",
        sa.Column("person_no", Serial, autoincrement=True, nullable=False),
        sa.Column("name", name(64), nullable=False),
        sa.Column("role", name(16), nullable=False),
        sa.Column("password_hash", name(255), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("changed_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_login_ms", sa.BigInteger(), nullable=True),
        sa.Column("is_disabled", Flag, server_default="0", nullable=False),
        sa.Column("must_change", Flag, server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("person_no"),
        sa.UniqueConstraint("name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "person_sessions",
        sa.Column("token_hash", key(32), nullable=False),
        sa.Column("person_no", sa.BigInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("seen_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("token_hash"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_person_sessions_person_no", "person_sessions", ["person_no"])
    op.create_index("ix_person_sessions_expires_at_ms", "person_sessions", ["expires_at_ms"])
    _lock("people")


def _lock(domain: str) -> None:
    locks = sa.table("write_locks", sa.column("name", name(32)), sa.column("next", sa.BigInteger()))
    op.bulk_insert(locks, [{"name": domain, "next": 1}])
