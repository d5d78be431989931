"""The first tables: devices and their proofs, messages and inboxes, the uplink log."""

import sqlalchemy as sa
from alembic import op

from longwire.adapters.sql.column_types import Flag, LongText, Serial, key, name, payload

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:

    op.create_table(
        "api_keys",
        sa.Column("key_id", name(64), nullable=False),
        sa.Column("name", name(128), nullable=False),
        sa.Column("secret_hash", name(255), nullable=False),
        sa.Column("scopes", LongText, nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("key_id"),
    )
    op.create_table(
        "apps",
        sa.Column("app_key", name(64), nullable=False),
        sa.Column("secret", name(128), nullable=False),
        sa.Column("master_hash", name(255), nullable=False),
        sa.PrimaryKeyConstraint("app_key"),
    )
    op.create_table(
        "dead_letters",
        sa.Column(
            "letter_no",
            Serial,
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("consumer", name(64), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("device_no", sa.BigInteger(), nullable=False),
        sa.Column("device_id", name(64), nullable=False),
        sa.Column("message_id", key(16), nullable=False),
        sa.Column("kind", name(64), nullable=False),
        sa.Column("payload", payload(65536), nullable=False),
        sa.Column("sent_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("trace", key(24), nullable=False),
        sa.Column("error", LongText, nullable=False),
        sa.Column("buried_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("replayed_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("letter_no"),
    )
    op.create_index(op.f("ix_dead_letters_buried_at_ms"), "dead_letters", ["buried_at_ms"], unique=False)
    op.create_table(
        "device_tags",
        sa.Column("device_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("tag", name(64), nullable=False),
        sa.PrimaryKeyConstraint("device_no", "tag"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "devices",
        sa.Column(
            "device_no",
            Serial,
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("device_id", name(64), nullable=False),
        sa.Column("user", name(64), nullable=True),
        sa.Column("platform", name(64), server_default="", nullable=False),
        sa.Column("app_version", name(64), server_default="", nullable=False),
        sa.Column("registered_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("is_disabled", Flag, server_default="0", nullable=False),
        sa.Column("refresh_hash", key(32), nullable=True),
        sa.Column("missed", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("device_no"),
        sa.UniqueConstraint("device_id"),
        sa.UniqueConstraint("refresh_hash"),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_devices_user"), "devices", ["user"], unique=False)
    op.create_table(
        "inbox",
        sa.Column("device_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("device_no", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "messages",
        sa.Column("seq", Serial, autoincrement=False, nullable=False),
        sa.Column("sender_no", sa.BigInteger(), nullable=False),
        sa.Column("message_id", key(16), nullable=False),
        sa.Column("sender", name(80), nullable=False),
        sa.Column("to", name(80), nullable=False),
        sa.Column("kind", name(64), nullable=False),
        sa.Column("payload", payload(65536), nullable=False),
        sa.Column("collapse_key", name(255), nullable=False),
        sa.Column("sent_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("trace", key(24), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("sender_no", "message_id", name="uq_messages_sender_message"),
    )
    op.create_table(
        "nonces",
        sa.Column("app_key", name(64), nullable=False),
        sa.Column("nonce", name(64), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("app_key", "nonce"),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_nonces_expires_at_ms"), "nonces", ["expires_at_ms"], unique=False)
    op.create_table(
        "receipts",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("device_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("outcome", sa.SmallInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("node_id", name(24), nullable=False),
        sa.PrimaryKeyConstraint("seq", "device_no"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "tokens",
        sa.Column("token_hash", key(32), nullable=False),
        sa.Column("device_no", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("token_hash"),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_tokens_device_no"), "tokens", ["device_no"], unique=False)
    op.create_index("ix_tokens_expires", "tokens", ["expires_at_ms"], unique=False)
    op.create_table(
        "uplink",
        sa.Column(
            "offset",
            Serial,
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("device_no", sa.BigInteger(), nullable=False),
        sa.Column("device_id", name(64), nullable=False),
        sa.Column("message_id", key(16), nullable=False),
        sa.Column("kind", name(64), nullable=False),
        sa.Column("payload", payload(65536), nullable=False),
        sa.Column("sent_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("trace", key(24), nullable=False),
        sa.PrimaryKeyConstraint("offset"),
        sa.UniqueConstraint("device_no", "message_id", name="uq_uplink_device_message"),
    )
    op.create_table(
        "uplink_cursors",
        sa.Column("consumer", name(64), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("consumer"),
    )
    # ### end Alembic commands ###
