"""Every table of the store, and how long its rows are kept.

Times are integers of milliseconds since the Unix epoch; hashes are SHA-256 digests. The retention named with a
table is kept by retention.py. Migrations (migrations/versions) make these tables; a test holds the two together.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

# SQLite counts only INTEGER PRIMARY KEY by itself.
_Serial = BigInteger().with_variant(Integer(), "sqlite")
_Id = LargeBinary(16)
_Hash = LargeBinary(32)

# Kept until deleted through the API.
devices = Table(
    "devices",
    metadata,
    Column("device_no", _Serial, primary_key=True, autoincrement=True),
    Column("device_id", String(64), nullable=False, unique=True),
    Column("user", String(64), index=True),
    Column("platform", String(64), nullable=False, server_default=""),
    Column("app_version", String(64), nullable=False, server_default=""),
    Column("registered_at_ms", BigInteger, nullable=False),
    Column("is_disabled", Boolean, nullable=False, server_default="0"),
    Column("refresh_hash", _Hash, unique=True),
    Column("missed", Integer, nullable=False, server_default="0"),
    # A number is never given twice, also after the device was deleted.
    sqlite_autoincrement=True,
)

# Kept with the device.
device_tags = Table(
    "device_tags",
    metadata,
    Column("device_no", BigInteger, primary_key=True, autoincrement=False),
    Column("tag", String(64), primary_key=True),
    sqlite_with_rowid=False,
)

# Kept a day past expiry, so that an expired token is told from an unknown one.
tokens = Table(
    "tokens",
    metadata,
    Column("token_hash", _Hash, primary_key=True),
    Column("device_no", BigInteger, nullable=False, index=True),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("revoked_at_ms", BigInteger),
    sqlite_with_rowid=False,
)

# Kept until the stamp they came with is too old to be taken.
nonces = Table(
    "nonces",
    metadata,
    Column("app_key", String(64), primary_key=True),
    Column("nonce", String(64), primary_key=True),
    Column("expires_at_ms", BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

# Kept until deleted.
apps = Table(
    "apps",
    metadata,
    Column("app_key", String(64), primary_key=True),
    Column("secret", String(128), nullable=False),
    Column("master_hash", String(255), nullable=False),
)

# Kept: who had which key is part of the audit.
api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", String(64), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("secret_hash", String(255), nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("revoked_at_ms", BigInteger),
)

# Kept 10 days: the longest TTL, so that a message outlives its inbox rows, its dedupe (24 h) and "where is my
# message" (7 days). ``seq`` rises with the time of acceptance, so that old rows are a prefix.
messages = Table(
    "messages",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=False),
    Column("sender_no", BigInteger, nullable=False),
    Column("message_id", _Id, nullable=False),
    Column("sender", String(80), nullable=False),
    Column("to", String(80), nullable=False),
    Column("kind", String(64), nullable=False),
    Column("payload", LargeBinary(65_536), nullable=False),
    Column("collapse_key", String(255), nullable=False),
    Column("sent_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("trace", LargeBinary(24), nullable=False),
    UniqueConstraint("sender_no", "message_id", name="uq_messages_sender_message"),
)

# A row a receiver, kept until acked, expired, collapsed, withdrawn or missed.
inbox = Table(
    "inbox",
    metadata,
    Column("device_no", BigInteger, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# How a message ended for a receiver (model.Outcome); kept as long as the message.
receipts = Table(
    "receipts",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("device_no", BigInteger, primary_key=True, autoincrement=False),
    Column("outcome", SmallInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("node_id", String(24), nullable=False),
    sqlite_with_rowid=False,
)

# Kept 7 days or 1 GiB, whichever is less.
uplink = Table(
    "uplink",
    metadata,
    Column("offset", _Serial, primary_key=True, autoincrement=False),
    Column("device_no", BigInteger, nullable=False),
    Column("device_id", String(64), nullable=False),
    Column("message_id", _Id, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("payload", LargeBinary(65_536), nullable=False),
    Column("sent_at_ms", BigInteger, nullable=False),
    Column("trace", LargeBinary(24), nullable=False),
    UniqueConstraint("device_no", "message_id", name="uq_uplink_device_message"),
)

# One row a consumer.
uplink_cursors = Table(
    "uplink_cursors",
    metadata,
    Column("consumer", String(64), primary_key=True),
    Column("offset", BigInteger, nullable=False),
)

# Kept 30 days.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("letter_no", _Serial, primary_key=True, autoincrement=True),
    Column("consumer", String(64), nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("device_no", BigInteger, nullable=False),
    Column("device_id", String(64), nullable=False),
    Column("message_id", _Id, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("payload", LargeBinary(65_536), nullable=False),
    Column("sent_at_ms", BigInteger, nullable=False),
    Column("trace", LargeBinary(24), nullable=False),
    Column("error", Text, nullable=False),
    Column("buried_at_ms", BigInteger, nullable=False, index=True),
    Column("replayed_at_ms", BigInteger),
)

Index("ix_tokens_expires", tokens.c.expires_at_ms)
