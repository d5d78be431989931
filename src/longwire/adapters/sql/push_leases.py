"""Leases: a segment of a push is one worker's at a time, by the number of the lease.

ready ── claim ──► leased ── dispatched (push_segments.merge) ──► done
  ▲                  │
  └── give_back ─────┘     or the lease runs out, and the next claim takes it
"""

from typing import Any

from sqlalchemy import Connection

from longwire import bitmaps
from longwire.adapters.sql import push_records
from longwire.adapters.sql.push_events import PushEvents
from longwire.adapters.sql.push_segments import LEASED, READY, Effects, advance, fail, load, store
from longwire.push_model import Claim

MAX_ATTEMPTS = 10
LINK_FAILED = "link-failed"

_LEASE = (
    "UPDATE push_segments SET state = ?, lease_no = ?, lease_until_ms = ?, worker = ? WHERE push_no = ? AND segment = ?"
)
# Two questions instead of one, so that each is answered in the order of the index. A push that is paced gives its
# lowest free segment, and none while another one is under a lease.
_FREE = """
SELECT s.priority, s.push_no, s.segment
FROM push_segments s INDEXED BY ix_push_segments_claim JOIN pushes p ON p.push_no = s.push_no
WHERE s.state = ? AND s.lease_until_ms <= ? AND p.status = 'sending' AND p.is_paused = 0 AND p.expires_at_ms > ?
AND (p.rate_per_s IS NULL OR NOT EXISTS (
    SELECT 1 FROM push_segments o WHERE o.push_no = s.push_no
    AND (o.state = 1 AND o.lease_until_ms > ? OR o.state < 2 AND o.lease_until_ms <= ? AND o.segment < s.segment)))
ORDER BY s.priority, s.push_no, s.segment LIMIT ?
"""


_END_ALL = (
    "UPDATE push_segments SET state = 0, lease_until_ms = 0 WHERE state = 1",
    "UPDATE pushes SET lease_until_ms = 0 WHERE status = 'resolving'",
)


def end_all(connection: Connection) -> None:
    """Ends every lease: for a store whose process is alone with it, when that process starts."""
    for statement in _END_ALL:
        connection.exec_driver_sql(statement).close()


def claim(
    connection: Connection, worker: str, limit: int, lease_ms: int, now_ms: int, effects: Effects, events: PushEvents
) -> list[Claim]:
    """See PushWork.claim."""
    found: list[Any] = []
    for state in (READY, LEASED):
        values = (state, now_ms, now_ms, now_ms, now_ms, limit)
        found += connection.exec_driver_sql(_FREE, values).fetchall()
    claims = []
    for _, push_no, segment in sorted(found)[:limit]:
        row = load(connection, push_no, segment)
        assert row is not None
        targets = bitmaps.above(row.devices.rest, row.cursor)
        if not targets:
            # Everybody in it has ended by something else meanwhile.
            row.finish()
            store(connection, row)
            advance(connection, push_no, now_ms, effects, events)
            effects.has_work = True
            continue
        new = push_records.read_new(connection, push_no)
        lease_no, until_ms = row.lease_no + 1, now_ms + lease_ms
        connection.exec_driver_sql(_LEASE, (LEASED, lease_no, until_ms, worker[:24], push_no, segment)).close()
        claims.append(
            Claim(
                push_no=push_no,
                segment=segment,
                lease_no=lease_no,
                lease_until_ms=until_ms,
                message=new.message,
                expires_at_ms=new.expires_at_ms,
                priority=new.priority,
                is_online_only=new.ttl_s == 0,
                rate_per_s=new.rate_per_s,
                cursor=row.cursor,
                targets=targets,
            )
        )
    return claims


def has_free(connection: Connection, now_ms: int) -> bool:
    """Whether a claim would find something."""
    return any(
        connection.exec_driver_sql(_FREE, (state, now_ms, now_ms, now_ms, now_ms, 1)).first() is not None
        for state in (READY, LEASED)
    )


def give_back(
    connection: Connection,
    claim: Claim,
    not_before_ms: int,
    error: str,
    now_ms: int,
    effects: Effects,
    events: PushEvents,
) -> None:
    """See PushWork.give_back."""
    row = load(connection, claim.push_no, claim.segment)
    if row is None or row.state != LEASED or row.lease_no != claim.lease_no:
        return
    row.state, row.lease_until_ms = READY, not_before_ms
    row.attempts = row.attempts + 1 if error else 0
    if row.attempts >= MAX_ATTEMPTS and now_ms < row.expires_at_ms:
        fail(connection, row, claim.targets - row.devices.written, LINK_FAILED, now_ms)
        row.finish()
        effects.changed.add(row.segment)
    store(connection, row)
    effects.has_work = True
    advance(connection, row.push_no, now_ms, effects, events)
