"""Pushes, sets of devices, and what operators see: presence, commands, imports, the audit, webhooks."""

from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op
from pyroaring import BitMap

from longwire.adapters.sql.column_types import Flag, LongText, Serial, TextOrEmpty, key, name, payload

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("audit_no", Serial, autoincrement=True, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("caller", name(64), nullable=False),
        sa.Column("action", name(128), nullable=False),
        sa.Column("target", name(128), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("request_id", name(64), nullable=False),
        sa.PrimaryKeyConstraint("audit_no"),
    )
    op.create_index(op.f("ix_audit_at_ms"), "audit", ["at_ms"], unique=False)
    op.create_table(
        "commands",
        sa.Column("command_id", key(16), nullable=False),
        sa.Column("device_no", sa.BigInteger(), nullable=False),
        sa.Column("device_id", name(64), nullable=False),
        sa.Column("method", name(128), nullable=False),
        sa.Column("status", name(16), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("timeout_ms", sa.Integer(), nullable=False),
        sa.Column("replied_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("is_late", Flag, server_default="0", nullable=False),
        sa.Column("reply_status", sa.SmallInteger(), nullable=True),
        sa.Column("detail", name(255), server_default="", nullable=False),
        sa.Column("payload", payload(65536), nullable=False),
        sa.Column("reply", payload(65536), nullable=False),
        sa.PrimaryKeyConstraint("command_id"),
    )
    op.create_index(op.f("ix_commands_created_at_ms"), "commands", ["created_at_ms"], unique=False)
    op.create_table(
        "device_memberships",
        sa.Column("device_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sets", sa.LargeBinary(length=4096), nullable=False),
        sa.PrimaryKeyConstraint("device_no"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "device_set_segments",
        sa.Column("set_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("segment", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("members", sa.LargeBinary(length=8256), nullable=False),
        sa.PrimaryKeyConstraint("set_no", "segment"),
    )
    op.create_table(
        "device_sets",
        sa.Column("set_no", Serial, autoincrement=True, nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("name", name(128), nullable=False),
        sa.Column("title", name(128), server_default="", nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("set_no"),
        sa.UniqueConstraint("kind", "name", name="uq_device_sets_kind_name"),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_device_sets_expires_at_ms"), "device_sets", ["expires_at_ms"], unique=False)
    op.create_table(
        "events",
        sa.Column("event_no", Serial, autoincrement=True, nullable=False),
        sa.Column("webhook_no", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("kind", name(32), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("device_no", sa.BigInteger(), nullable=False),
        sa.Column("body", payload(1048576), nullable=False),
        sa.PrimaryKeyConstraint("event_no"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "group_users",
        sa.Column("set_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user", name(64), nullable=False),
        sa.PrimaryKeyConstraint("set_no", "user"),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_group_users_user"), "group_users", ["user"], unique=False)
    op.create_table(
        "idempotency",
        sa.Column("caller", name(64), nullable=False),
        sa.Column("key", name(255), nullable=False),
        sa.Column("fingerprint", key(32), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("location", name(255), server_default="", nullable=False),
        sa.Column("body", payload(262144), nullable=False),
        sa.PrimaryKeyConstraint("caller", "key"),
    )
    op.create_index(op.f("ix_idempotency_created_at_ms"), "idempotency", ["created_at_ms"], unique=False)
    op.create_table(
        "imports",
        sa.Column("import_id", key(16), nullable=False),
        sa.Column("status", name(16), nullable=False),
        sa.Column("format", name(16), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("lines", sa.Integer(), server_default="0", nullable=False),
        sa.Column("done", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("errors", LongText, nullable=False),
        sa.PrimaryKeyConstraint("import_id"),
    )
    op.create_index(op.f("ix_imports_created_at_ms"), "imports", ["created_at_ms"], unique=False)
    op.create_table(
        "presence",
        sa.Column("device_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("node_id", name(24), nullable=False),
        sa.Column("transport", name(16), nullable=False),
        sa.Column("close_code", sa.SmallInteger(), nullable=True),
        sa.PrimaryKeyConstraint("device_no"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "push_failures",
        sa.Column("push_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("device_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("reason", name(64), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("push_no", "device_no"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "push_segments",
        sa.Column("push_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("segment", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("is_open", Flag, nullable=False),
        sa.Column("rest_min", sa.BigInteger(), nullable=False),
        sa.Column("rest_max", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), server_default="-1", nullable=False),
        sa.Column("lease_no", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_until_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("worker", name(24), server_default="", nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("n_targeted", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_online", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_handled", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_written", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_acked", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_withdrawn", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_canceled", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_collapsed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_expired", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_rest", sa.Integer(), server_default="0", nullable=False),
        sa.Column("latency", sa.LargeBinary(length=1024), nullable=True),
        sa.Column("rest", sa.LargeBinary(length=8256), nullable=True),
        sa.Column("targeted", sa.LargeBinary(length=8256), nullable=True),
        sa.Column("written", sa.LargeBinary(length=8256), nullable=True),
        sa.Column("acked", sa.LargeBinary(length=8256), nullable=True),
        sa.Column("withdrawn", sa.LargeBinary(length=8256), nullable=True),
        sa.Column("canceled", sa.LargeBinary(length=8256), nullable=True),
        sa.Column("collapsed", sa.LargeBinary(length=8256), nullable=True),
        sa.Column("failed", sa.LargeBinary(length=8256), nullable=True),
        sa.Column("expired", sa.LargeBinary(length=8256), nullable=True),
        sa.PrimaryKeyConstraint("push_no", "segment"),
    )
    op.create_index(
        "ix_push_segments_claim", "push_segments", ["state", "priority", "push_no", "segment"], unique=False
    )
    op.create_index(
        "ix_push_segments_open",
        "push_segments",
        ["segment", "is_open", "rest_min", "rest_max", "push_no"],
        unique=False,
    )
    op.create_table(
        "pushes",
        sa.Column("push_no", Serial, autoincrement=True, nullable=False),
        sa.Column("push_id", key(16), nullable=False),
        sa.Column("sender_no", sa.BigInteger(), nullable=False),
        sa.Column("message_id", key(16), nullable=False),
        sa.Column("status", name(16), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("is_paused", Flag, server_default="0", nullable=False),
        sa.Column("rate_per_s", sa.Integer(), nullable=True),
        sa.Column("ttl_s", sa.Integer(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("send_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("started_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("finished_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("lease_no", sa.Integer(), server_default="0", nullable=False),
        sa.Column("lease_until_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("attempts", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("sender", name(80), nullable=False),
        sa.Column("to", name(80), nullable=False),
        sa.Column("kind", name(64), nullable=False),
        sa.Column("collapse_key", name(255), nullable=False),
        sa.Column("caller", name(64), nullable=False),
        sa.Column("retry_of", sa.BigInteger(), nullable=True),
        sa.Column("notice_of", sa.BigInteger(), nullable=True),
        sa.Column("unresolved", sa.Integer(), server_default="0", nullable=False),
        sa.Column("unresolved_sample", TextOrEmpty, server_default="", nullable=False),
        sa.Column("failure", name(255), server_default="", nullable=False),
        sa.Column("audience", LongText, nullable=False),
        sa.Column("totals", LongText, nullable=True),
        sa.Column("trace", key(24), nullable=False),
        sa.Column("payload", payload(65536), nullable=False),
        sa.PrimaryKeyConstraint("push_no"),
        sa.UniqueConstraint("sender_no", "message_id", name="uq_pushes_sender_message"),
        sa.UniqueConstraint("push_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_pushes_collapse", "pushes", ["collapse_key", "sender_no"], unique=False)
    op.create_index("ix_pushes_ended", "pushes", ["ended_at_ms"], unique=False)
    op.create_index("ix_pushes_expires", "pushes", ["status", "expires_at_ms"], unique=False)
    op.create_index(op.f("ix_pushes_notice_of"), "pushes", ["notice_of"], unique=False)
    op.create_index("ix_pushes_status", "pushes", ["status", "send_at_ms"], unique=False)
    op.create_table(
        "webhook_letters",
        sa.Column("letter_no", Serial, autoincrement=True, nullable=False),
        sa.Column("webhook_no", sa.BigInteger(), nullable=False),
        sa.Column("error", LongText, nullable=False),
        sa.Column("buried_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("replayed_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("body", payload(1048576), nullable=False),
        sa.PrimaryKeyConstraint("letter_no"),
    )
    op.create_index(op.f("ix_webhook_letters_buried_at_ms"), "webhook_letters", ["buried_at_ms"], unique=False)
    op.create_table(
        "webhooks",
        sa.Column("webhook_no", Serial, autoincrement=True, nullable=False),
        sa.Column("url", name(2048), nullable=False),
        sa.Column("secret", name(128), nullable=False),
        sa.Column("kinds", LongText, nullable=False),
        sa.Column("is_enabled", Flag, server_default="1", nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("last_success_ms", sa.BigInteger(), nullable=True),
        sa.Column("failing_since_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("webhook_no"),
        sqlite_autoincrement=True,
    )
    op.add_column("devices", sa.Column("banned_until_ms", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("devices", sa.Column("is_claimed", Flag, server_default="1", nullable=False))
    _carry_tags()


def _carry_tags() -> None:
    """Tags that were rows become sets; every device joins the sets that the system keeps."""
    connection = op.get_bind()
    sets: dict[tuple[int, str], BitMap] = {}
    own: dict[int, list[tuple[int, str]]] = {}
    for number, platform, version, at_ms in connection.exec_driver_sql(
        "SELECT device_no, platform, app_version, registered_at_ms FROM devices"
    ):
        day = datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")
        names = [(0, ""), (1, f"sys:registered={day}")]
        names += [(1, f"sys:platform={platform}")] if platform else []
        names += [(1, f"sys:version={version}")] if version else []
        own[number] = names
    for number, tag in connection.exec_driver_sql("SELECT device_no, tag FROM device_tags"):
        if number in own:
            own[number].append((1, tag))
    for number, names in own.items():
        for entry in names:
            sets.setdefault(entry, BitMap()).add(number)
    numbers: dict[tuple[int, str], int] = {}
    for set_no, ((kind, title), devices) in enumerate(sorted(sets.items(), key=lambda item: item[0]), 1):
        numbers[kind, title] = set_no
        connection.exec_driver_sql(
            "INSERT INTO device_sets (set_no, kind, name, created_at_ms) VALUES (?, ?, ?, 0)", (set_no, kind, title)
        ).close()
        for segment in sorted({number >> 16 for number in devices}):
            part = devices & BitMap(range(segment << 16, (segment + 1) << 16))
            part.run_optimize()
            connection.exec_driver_sql(
                "INSERT INTO device_set_segments (set_no, segment, size, members) VALUES (?, ?, ?, ?)",
                (set_no, segment, len(part), part.serialize()),
            ).close()
    for number, names in own.items():
        mine = BitMap([numbers[name] for name in names])
        connection.exec_driver_sql(
            "INSERT INTO device_memberships (device_no, sets) VALUES (?, ?)", (number, mine.serialize())
        ).close()
    op.drop_table("device_tags")
