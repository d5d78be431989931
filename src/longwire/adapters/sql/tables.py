"""Every table of the store, and how long its rows are kept.

Times are integers of milliseconds since the Unix epoch; hashes are SHA-256 digests. The retention named with a
table is kept by retention.py. Migrations (migrations/versions) make these tables; a test holds the two together.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    UniqueConstraint,
)

from longwire.adapters.sql.column_types import Flag, LongText, Serial, TextOrEmpty, key, name, payload

metadata = MetaData()

_Id = key(16)
_Hash = key(32)
_Blob = LargeBinary(8_256)


def _bitmap(title: str) -> Column[bytes]:
    return Column(title, _Blob)


def _count(title: str) -> Column[int]:
    return Column(title, Integer, nullable=False, server_default="0")


# Kept for good: a row a domain (domains.py), and one a process that writes, a week after its last group (shared.py).
write_locks = Table(
    "write_locks",
    metadata,
    Column("name", name(32), primary_key=True),
    Column("next", BigInteger, nullable=False),
)

# Kept until deleted through the API.
devices = Table(
    "devices",
    metadata,
    Column("device_no", Serial, primary_key=True, autoincrement=True),
    Column("device_id", name(64), nullable=False, unique=True),
    Column("user", name(64), index=True),
    Column("platform", name(64), nullable=False, server_default=""),
    Column("app_version", name(64), nullable=False, server_default=""),
    Column("registered_at_ms", BigInteger, nullable=False),
    Column("is_disabled", Flag, nullable=False, server_default="0"),
    Column("refresh_hash", _Hash, unique=True),
    Column("missed", Integer, nullable=False, server_default="0"),
    Column("banned_until_ms", BigInteger, nullable=False, server_default="0"),
    Column("is_claimed", Flag, nullable=False, server_default="1"),
    # A number is never given twice, also after the device was deleted.
    sqlite_autoincrement=True,
)

# Groups are kept until deleted, tags until a day after their last member left, uploads until they expire.
device_sets = Table(
    "device_sets",
    metadata,
    Column("set_no", Serial, primary_key=True, autoincrement=True),
    Column("kind", SmallInteger, nullable=False),
    Column("name", name(128), nullable=False),
    Column("title", name(128), nullable=False, server_default=""),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, index=True),
    UniqueConstraint("kind", "name", name="uq_device_sets_kind_name"),
    # A number stands in device_memberships: it is never given twice.
    sqlite_autoincrement=True,
)

# Kept with the set. The size stands before the blob: counting reads no bitmap.
device_set_segments = Table(
    "device_set_segments",
    metadata,
    Column("set_no", BigInteger, primary_key=True, autoincrement=False),
    Column("segment", Integer, primary_key=True, autoincrement=False),
    Column("size", Integer, nullable=False),
    Column("members", _Blob, nullable=False),
)

# Kept with the device: a serialised bitmap of the numbers of its tags and groups.
device_memberships = Table(
    "device_memberships",
    metadata,
    Column("device_no", BigInteger, primary_key=True, autoincrement=False),
    Column("sets", LargeBinary(4_096), nullable=False),
    sqlite_with_rowid=False,
)

# Kept with the group.
group_users = Table(
    "group_users",
    metadata,
    Column("set_no", BigInteger, primary_key=True, autoincrement=False),
    Column("user", name(64), primary_key=True, index=True),
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
    Column("app_key", name(64), primary_key=True),
    Column("nonce", name(64), primary_key=True),
    Column("expires_at_ms", BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

# Kept until deleted.
apps = Table(
    "apps",
    metadata,
    Column("app_key", name(64), primary_key=True),
    Column("secret", name(128), nullable=False),
    Column("master_hash", name(255), nullable=False),
)

# Kept: who had which key is part of the audit.
api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", name(64), primary_key=True),
    Column("name", name(128), nullable=False),
    Column("secret_hash", name(255), nullable=False),
    Column("scopes", LongText, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("revoked_at_ms", BigInteger),
)

# Kept 10 days: the longest TTL, so that a message outlives its inbox rows, its dedupe (24 h) and "where is my
# message" (7 days). ``seq`` rises with the time of acceptance, so that old rows are a prefix.
messages = Table(
    "messages",
    metadata,
    Column("seq", Serial, primary_key=True, autoincrement=False),
    Column("sender_no", BigInteger, nullable=False),
    Column("message_id", _Id, nullable=False),
    Column("sender", name(80), nullable=False),
    Column("to", name(80), nullable=False),
    Column("kind", name(64), nullable=False),
    Column("payload", payload(65_536), nullable=False),
    Column("collapse_key", name(255), nullable=False),
    Column("sent_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("trace", key(24), nullable=False),
    # The numbers of its receivers, eight bytes each, the least first. None: a process of an older release kept it.
    Column("receivers", LargeBinary(8_256)),
    # The id first: a message is found by its id alone, and ids that rise with time append to the index.
    UniqueConstraint("message_id", "sender_no", name="uq_messages_message_sender"),
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
    Column("node_id", name(24), nullable=False),
    sqlite_with_rowid=False,
)

# Kept 7 days or 1 GiB, whichever is less.
uplink = Table(
    "uplink",
    metadata,
    Column("offset", Serial, primary_key=True, autoincrement=False),
    Column("device_no", BigInteger, nullable=False),
    Column("device_id", name(64), nullable=False),
    Column("message_id", _Id, nullable=False),
    Column("kind", name(64), nullable=False),
    Column("payload", payload(65_536), nullable=False),
    Column("sent_at_ms", BigInteger, nullable=False),
    Column("trace", key(24), nullable=False),
    # Where it stood in a log of another engine.
    Column("log_position", BigInteger),
    UniqueConstraint("message_id", "device_no", name="uq_uplink_message_device"),
)

# One row a consumer.
uplink_cursors = Table(
    "uplink_cursors",
    metadata,
    Column("consumer", name(64), primary_key=True),
    Column("offset", BigInteger, nullable=False),
)

# Kept 30 days.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("letter_no", Serial, primary_key=True, autoincrement=True),
    Column("consumer", name(64), nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("device_no", BigInteger, nullable=False),
    Column("device_id", name(64), nullable=False),
    Column("message_id", _Id, nullable=False),
    Column("kind", name(64), nullable=False),
    Column("payload", payload(65_536), nullable=False),
    Column("sent_at_ms", BigInteger, nullable=False),
    Column("trace", key(24), nullable=False),
    Column("error", LongText, nullable=False),
    Column("buried_at_ms", BigInteger, nullable=False, index=True),
    Column("replayed_at_ms", BigInteger),
)

# Kept 90 days after its end; totals are written when its segments go.
pushes = Table(
    "pushes",
    metadata,
    Column("push_no", Serial, primary_key=True, autoincrement=True),
    Column("push_id", _Id, nullable=False, unique=True),
    Column("sender_no", BigInteger, nullable=False),
    Column("message_id", _Id, nullable=False),
    Column("status", name(16), nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("is_paused", Flag, nullable=False, server_default="0"),
    Column("rate_per_s", Integer),
    Column("ttl_s", Integer, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("send_at_ms", BigInteger),
    Column("started_at_ms", BigInteger),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
    Column("finished_at_ms", BigInteger),
    Column("lease_no", Integer, nullable=False, server_default="0"),
    Column("lease_until_ms", BigInteger, nullable=False, server_default="0"),
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    Column("sender", name(80), nullable=False),
    Column("to", name(80), nullable=False),
    Column("kind", name(64), nullable=False),
    Column("collapse_key", name(255), nullable=False),
    Column("caller", name(64), nullable=False),
    Column("retry_of", BigInteger),
    Column("notice_of", BigInteger, index=True),
    Column("unresolved", Integer, nullable=False, server_default="0"),
    Column("unresolved_sample", TextOrEmpty, nullable=False, server_default=""),
    Column("failure", name(255), nullable=False, server_default=""),
    Column("audience", LongText, nullable=False),
    Column("totals", LongText),
    Column("trace", key(24), nullable=False),
    Column("payload", payload(65_536), nullable=False),
    UniqueConstraint("sender_no", "message_id", name="uq_pushes_sender_message"),
    Index("ix_pushes_status", "status", "send_at_ms"),
    Index("ix_pushes_ended", "ended_at_ms"),
    Index("ix_pushes_expires", "status", "expires_at_ms"),
    Index("ix_pushes_collapse", "collapse_key", "sender_no"),
    sqlite_autoincrement=True,
)

# Kept 7 days after the push's end. Numbers stand before the bitmaps: totals and claims read no blob.
push_segments = Table(
    "push_segments",
    metadata,
    Column("push_no", BigInteger, primary_key=True, autoincrement=False),
    Column("segment", Integer, primary_key=True, autoincrement=False),
    Column("state", SmallInteger, nullable=False, server_default="0"),
    Column("priority", SmallInteger, nullable=False),
    Column("is_open", Flag, nullable=False),
    Column("rest_min", BigInteger, nullable=False),
    Column("rest_max", BigInteger, nullable=False),
    Column("cursor", BigInteger, nullable=False, server_default="-1"),
    Column("lease_no", Integer, nullable=False, server_default="0"),
    Column("lease_until_ms", BigInteger, nullable=False, server_default="0"),
    Column("worker", name(24), nullable=False, server_default=""),
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    _count("n_targeted"),
    _count("n_online"),
    _count("n_handled"),
    _count("n_written"),
    _count("n_acked"),
    _count("n_withdrawn"),
    _count("n_canceled"),
    _count("n_collapsed"),
    _count("n_failed"),
    _count("n_expired"),
    _count("n_rest"),
    Column("latency", LargeBinary(1_024)),
    _bitmap("rest"),
    _bitmap("targeted"),
    _bitmap("written"),
    _bitmap("acked"),
    _bitmap("withdrawn"),
    _bitmap("canceled"),
    _bitmap("collapsed"),
    _bitmap("failed"),
    _bitmap("expired"),
    Index("ix_push_segments_open", "segment", "is_open", "rest_min", "rest_max", "push_no"),
    Index("ix_push_segments_claim", "state", "priority", "push_no", "segment"),
)

# Kept with the segments.
push_failures = Table(
    "push_failures",
    metadata,
    Column("push_no", BigInteger, primary_key=True, autoincrement=False),
    Column("device_no", BigInteger, primary_key=True, autoincrement=False),
    Column("reason", name(64), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Kept with the segments: what was written and acknowledged in each minute since the epoch.
push_minutes = Table(
    "push_minutes",
    metadata,
    Column("push_no", BigInteger, primary_key=True, autoincrement=False),
    Column("minute", BigInteger, primary_key=True, autoincrement=False),
    _count("written"),
    _count("acked"),
    sqlite_with_rowid=False,
)

# Kept a day.
idempotency = Table(
    "idempotency",
    metadata,
    Column("caller", name(64), primary_key=True),
    Column("key", name(255), primary_key=True),
    Column("fingerprint", _Hash, nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False, index=True),
    Column("location", name(255), nullable=False, server_default=""),
    Column("body", payload(262_144), nullable=False),
)

# Kept with the device.
presence = Table(
    "presence",
    metadata,
    Column("device_no", BigInteger, primary_key=True, autoincrement=False),
    Column("version", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger, nullable=False),
    Column("node_id", name(24), nullable=False),
    Column("transport", name(16), nullable=False),
    Column("close_code", SmallInteger),
    sqlite_with_rowid=False,
)

# A row a connection that has ended, kept 7 days, 5,000,000 rows at the most.
past_sessions = Table(
    "past_sessions",
    metadata,
    Column("device_no", BigInteger, primary_key=True, autoincrement=False),
    Column("epoch", BigInteger, primary_key=True, autoincrement=False),
    Column("began_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger, nullable=False, index=True),
    Column("node_id", name(24), nullable=False),
    Column("transport", name(16), nullable=False),
    Column("close_code", SmallInteger),
    sqlite_with_rowid=False,
)

# What belongs to a trace (trace_rows.RefKind and its id), kept 7 days.
trace_refs = Table(
    "trace_refs",
    metadata,
    Column("trace_id", key(16), primary_key=True),
    Column("kind", SmallInteger, primary_key=True, autoincrement=False),
    Column("ref", key(16), primary_key=True),
    Column("at_ms", BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

# Kept 7 days.
commands = Table(
    "commands",
    metadata,
    Column("command_id", _Id, primary_key=True),
    Column("device_no", BigInteger, nullable=False),
    Column("device_id", name(64), nullable=False),
    Column("method", name(128), nullable=False),
    Column("status", name(16), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False, index=True),
    Column("timeout_ms", Integer, nullable=False),
    Column("replied_at_ms", BigInteger),
    Column("is_late", Flag, nullable=False, server_default="0"),
    Column("reply_status", SmallInteger),
    Column("detail", name(255), nullable=False, server_default=""),
    Column("payload", payload(65_536), nullable=False),
    Column("reply", payload(65_536), nullable=False),
)

# Kept 7 days after the end.
imports = Table(
    "imports",
    metadata,
    Column("import_id", _Id, primary_key=True),
    Column("status", name(16), nullable=False),
    Column("format", name(16), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False, index=True),
    Column("ended_at_ms", BigInteger),
    Column("lines", Integer, nullable=False, server_default="0"),
    Column("done", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("errors", LongText, nullable=False),
)

# Kept 90 days.
audit = Table(
    "audit",
    metadata,
    Column("audit_no", Serial, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False, index=True),
    Column("caller", name(64), nullable=False),
    Column("action", name(128), nullable=False),
    Column("target", name(128), nullable=False),
    Column("status", SmallInteger, nullable=False),
    Column("request_id", name(64), nullable=False),
    Index("ix_audit_request", "request_id"),
)

# What operators asked every process to do for a while: marks and log levels. Kept a day past their end.
directives = Table(
    "directives",
    metadata,
    Column("directive_no", Serial, primary_key=True, autoincrement=True),
    Column("kind", name(16), nullable=False),
    Column("name", name(128), nullable=False),
    Column("value", name(32), nullable=False),
    Column("caller", name(64), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("until_ms", BigInteger, nullable=False, index=True),
    UniqueConstraint("kind", "name", name="uq_directives_kind_name"),
)

# Kept until deleted.
people = Table(
    "people",
    metadata,
    Column("person_no", Serial, primary_key=True, autoincrement=True),
    Column("name", name(64), nullable=False, unique=True),
    Column("role", name(16), nullable=False),
    Column("password_hash", name(255), nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("changed_at_ms", BigInteger, nullable=False),
    Column("last_login_ms", BigInteger),
    Column("is_disabled", Flag, nullable=False, server_default="0"),
    Column("must_change", Flag, nullable=False, server_default="0"),
    # A number stands in person_sessions: it is never given twice.
    sqlite_autoincrement=True,
)

# Kept until they expire.
person_sessions = Table(
    "person_sessions",
    metadata,
    Column("token_hash", _Hash, primary_key=True),
    Column("person_no", BigInteger, nullable=False, index=True),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("seen_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

# Kept until every webhook has taken it, two days or 1 GiB at the most.
events = Table(
    "events",
    metadata,
    Column("event_no", Serial, primary_key=True, autoincrement=True),
    Column("webhook_no", BigInteger, nullable=False, server_default="0"),
    Column("kind", name(32), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("device_no", BigInteger, nullable=False),
    # A replayed message of the largest size, in base64, fits.
    Column("body", payload(1 << 20), nullable=False),
    sqlite_autoincrement=True,
)

# Kept until deleted.
webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook_no", Serial, primary_key=True, autoincrement=True),
    Column("url", name(2_048), nullable=False),
    Column("secret", name(128), nullable=False),
    Column("kinds", LongText, nullable=False),
    Column("is_enabled", Flag, nullable=False, server_default="1"),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("cursor", BigInteger, nullable=False),
    Column("last_success_ms", BigInteger),
    Column("failing_since_ms", BigInteger),
    sqlite_autoincrement=True,
)

# Kept 30 days.
webhook_letters = Table(
    "webhook_letters",
    metadata,
    Column("letter_no", Serial, primary_key=True, autoincrement=True),
    Column("webhook_no", BigInteger, nullable=False),
    Column("error", LongText, nullable=False),
    Column("buried_at_ms", BigInteger, nullable=False, index=True),
    Column("replayed_at_ms", BigInteger),
    Column("body", payload(1 << 20), nullable=False),
)

Index("ix_tokens_expires", tokens.c.expires_at_ms)
