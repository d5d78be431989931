"""Rows of ``pushes`` as values, and the other way round.

What devices are in which state is summed up from the segments, in the statement that reads the push: one moment. Once
the segments are gone, the totals that were kept say it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from longwire import funnel
from longwire.adapters.sql import bulk
from longwire.adapters.sql.domains import Domain, take
from longwire.histogram import Histogram
from longwire.push_model import (
    Audience,
    NewPush,
    Priority,
    Push,
    PushMessage,
    PushStats,
    PushStatus,
    SegmentCounts,
)

_INSERT = (
    "INSERT INTO pushes (push_no, push_id, sender_no, message_id, status, priority, rate_per_s, ttl_s, created_at_ms,"
    ' send_at_ms, started_at_ms, expires_at_ms, sender, "to", kind, collapse_key, caller, retry_of, notice_of,'
    " unresolved, unresolved_sample, audience, trace, payload)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_COLUMNS = (
    "p.push_no, p.push_id, p.sender_no, p.message_id, p.status, p.priority, p.is_paused, p.rate_per_s, p.ttl_s,"
    " p.created_at_ms, p.send_at_ms, p.started_at_ms, p.expires_at_ms, p.ended_at_ms, p.sender,"
    ' p."to", p.kind, p.collapse_key, p.caller, p.retry_of, p.notice_of, p.unresolved, p.unresolved_sample, p.failure,'
    " p.audience, p.totals, p.trace, p.payload"
)
_SUMS = ", ".join(
    f"COALESCE(SUM(s.{name}), 0) AS {name}"
    for name in (
        "n_targeted",
        "n_written",
        "n_acked",
        "n_withdrawn",
        "n_canceled",
        "n_collapsed",
        "n_failed",
        "n_expired",
        "n_rest",
        "n_online",
        "n_handled",
    )
)
_READ = (
    f"SELECT {_COLUMNS}, {_SUMS}, COALESCE(MAX(s.lease_no), 0) AS last_lease FROM pushes p"
    " LEFT JOIN push_segments s ON s.push_no = p.push_no"
    " WHERE p.push_no IN ({wanted}) GROUP BY p.push_no ORDER BY p.push_no DESC"
)
_LATENCY = "SELECT push_no, latency FROM push_segments WHERE push_no IN ({rows}) AND latency IS NOT NULL"
_MESSAGE = f"SELECT {_COLUMNS} FROM pushes p WHERE p.push_no = ?"
_NEWEST = 1 << 62
_IS_TAKEN = "EXISTS (SELECT 1 FROM push_segments s WHERE s.push_no = pushes.push_no AND s.lease_no > 0)"
_SHOWN = {
    PushStatus.ACCEPTED: f"status = 'sending' AND is_paused = 0 AND NOT {_IS_TAKEN}",
    PushStatus.SENDING: f"status = 'sending' AND is_paused = 0 AND {_IS_TAKEN}",
    PushStatus.PAUSED: "status = 'sending' AND is_paused = 1",
}


class Totals(msgspec.Struct):
    """What is left of a push's segments when they go."""

    stats: PushStats
    dispatched: int
    latency_ms: tuple[float | None, float | None, float | None]


def insert(connection: Connection, new: NewPush, status: PushStatus) -> int:
    """Keeps the push; its number. One that is sent at once has started when it was made."""
    message = new.message
    push_no = take(connection, Domain.PUSHES, 1)[0]
    values = (
        push_no,
        new.push_id,
        new.sender_no,
        message.message_id,
        status.value,
        int(new.priority),
        new.rate_per_s,
        new.ttl_s,
        new.created_at_ms,
        new.send_at_ms,
        None if status is PushStatus.SCHEDULED else new.created_at_ms,
        new.expires_at_ms,
        message.sender,
        message.to,
        message.kind,
        message.collapse_key,
        new.caller,
        new.retry_of,
        new.notice_of,
        new.unresolved,
        sample_text(new.unresolved_sample),
        msgspec.json.encode(new.audience).decode(),
        message.trace,
        message.payload,
    )
    result = connection.exec_driver_sql(_INSERT, values)
    return result.lastrowid if push_no is None else push_no


def sample_text(sample: Sequence[str]) -> str:
    """Names of unresolved targets as they are kept."""
    return msgspec.json.encode(list(sample)).decode() if sample else ""


def read(connection: Connection, push_no: int, now_ms: int) -> Push:
    """The push that has this number."""
    return _read(connection, "?", (push_no,), now_ms)[0]


def find(connection: Connection, column: str, value: object, now_ms: int) -> Push | None:
    """The push where ``column``, a unique one, has this value."""
    return next(iter(_read(connection, f"SELECT push_no FROM pushes WHERE {column} = ?", (value,), now_ms)), None)


def find_sent(connection: Connection, sender_no: int, message_id: bytes, now_ms: int) -> Push | None:
    """The push that a sender's message made."""
    wanted = "SELECT push_no FROM pushes WHERE sender_no = ? AND message_id = ?"
    return next(iter(_read(connection, wanted, (sender_no, message_id), now_ms)), None)


def page(connection: Connection, before_no: int, limit: int, status: PushStatus | None, now_ms: int) -> list[Push]:
    """See PushStore.page."""
    condition = "1 = 1" if status is None else _SHOWN.get(status, f"status = '{status.value}'")
    wanted = (
        f"SELECT push_no FROM pushes WHERE push_no < ? AND sender_no = 0 AND notice_of IS NULL AND {condition}"
        " ORDER BY push_no DESC LIMIT ?"
    )
    # MariaDB takes no LIMIT directly in IN (…).
    wanted = f"SELECT push_no FROM ({wanted}) AS found"
    return _read(connection, wanted, (before_no or _NEWEST, limit), now_ms)


def read_new(connection: Connection, push_no: int) -> NewPush:
    """The push as it was asked for."""
    return _new_of(connection.exec_driver_sql(_MESSAGE, (push_no,)).one())


def totals(push: Push) -> str:
    """A push's numbers as they are kept when its segments go."""
    return msgspec.json.encode(Totals(push.stats, push.dispatched, push.latency_ms)).decode()


def _read(connection: Connection, wanted: str, values: tuple[object, ...], now_ms: int) -> list[Push]:
    rows = connection.exec_driver_sql(_READ.format(wanted=wanted), values).fetchall()
    latencies = {row.push_no: Histogram() for row in rows}
    for push_no, blob in bulk.select_in(connection, _LATENCY, latencies):
        latencies[push_no].merge(Histogram.load(blob))
    return [_push_of(row, latencies[row.push_no], now_ms) for row in rows]


def _push_of(row: Any, latency: Histogram, now_ms: int) -> Push:
    counts = SegmentCounts(
        row.n_targeted,
        row.n_written,
        row.n_acked,
        row.n_withdrawn,
        row.n_canceled,
        row.n_collapsed,
        row.n_failed,
        row.n_expired,
        row.n_rest,
    )
    kept = Totals(
        funnel.stats(counts, row.n_online, now_ms >= row.expires_at_ms),
        row.n_handled,
        (latency.percentile_ms(0.5), latency.percentile_ms(0.95), latency.percentile_ms(0.99)),
    )
    if row.totals is not None:
        kept = msgspec.json.decode(row.totals, type=Totals)
    return Push(
        push_no=row.push_no,
        new=_new_of(row),
        status=_shown(row),
        dispatched=kept.dispatched,
        stats=kept.stats,
        latency_ms=kept.latency_ms,
        rate_per_s=row.rate_per_s,
        started_at_ms=row.started_at_ms,
        ended_at_ms=row.ended_at_ms,
        failure=row.failure,
    )


def _shown(row: Any) -> PushStatus:
    status = PushStatus(row.status)
    if status is not PushStatus.SENDING:
        return status
    if row.is_paused:
        return PushStatus.PAUSED
    return status if row.last_lease else PushStatus.ACCEPTED


def _new_of(row: Any) -> NewPush:
    sent_at_ms = row.send_at_ms if row.send_at_ms is not None else row.created_at_ms
    return NewPush(
        push_id=row.push_id,
        audience=msgspec.json.decode(row.audience, type=Audience),
        message=PushMessage(
            message_id=row.message_id,
            kind=row.kind,
            payload=row.payload,
            sent_at_ms=row.started_at_ms if row.started_at_ms is not None else sent_at_ms,
            sender=row.sender,
            to=row.to,
            collapse_key=row.collapse_key,
            trace=row.trace,
        ),
        created_at_ms=row.created_at_ms,
        expires_at_ms=row.expires_at_ms,
        sender_no=row.sender_no,
        caller=row.caller,
        priority=Priority(row.priority),
        ttl_s=row.ttl_s,
        send_at_ms=row.send_at_ms,
        rate_per_s=row.rate_per_s,
        unresolved=row.unresolved,
        unresolved_sample=tuple(msgspec.json.decode(row.unresolved_sample)) if row.unresolved_sample else (),
        retry_of=row.retry_of,
        notice_of=row.notice_of,
    )
