"""The schedule in ``pushes``: what is due, under a lease; what is over; when the next of either is.

scheduled ── due ──► resolving ── begin ──► sending
                        │  ▲ └─── give_up ─► failed
                        └──┘ the lease runs out, and the next who looks takes it
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from longwire.adapters.sql import push_records
from longwire.adapters.sql.column_types import fitting
from longwire.ports.push_work import Due

LIVE = "status IN ('sending', 'dispatched')"
TTL_0_GRACE_MS = 5_000
"""How long acknowledgements of a push without a time to live are waited for."""

_MAX_FAILURE_CHARACTERS = 255
_DUE = (
    "SELECT push_no, lease_no + 1 FROM pushes"
    " WHERE status = 'scheduled' AND send_at_ms <= ? OR status = 'resolving' AND lease_until_ms <= ?"
    " ORDER BY send_at_ms, push_no LIMIT ?"
)
_LEASE = "UPDATE pushes SET status = 'resolving', lease_no = ?, lease_until_ms = ? WHERE push_no = ?"
_BEGIN = (
    "UPDATE pushes SET status = 'sending', started_at_ms = ?, expires_at_ms = ?, unresolved = ?, unresolved_sample = ?"
    " WHERE push_no = ? AND status = 'resolving' AND lease_no = ? AND lease_until_ms > ?"
)
_GIVE_UP = (
    "UPDATE pushes SET status = 'failed', failure = ?, ended_at_ms = ?"
    " WHERE push_no = ? AND status = 'resolving' AND lease_no = ?"
)
_OVER = f"SELECT push_no FROM pushes WHERE {LIVE} AND expires_at_ms <= ? LIMIT ?"
_HALF_CANCELED = (
    "SELECT push_no FROM pushes WHERE ended_at_ms >= ? AND status = 'canceled' AND finished_at_ms IS NULL"
    " ORDER BY push_no LIMIT ?"
)
_NEXT_MOMENT = (
    "SELECT MIN(at_ms) FROM ("
    "SELECT MIN(send_at_ms) AS at_ms FROM pushes WHERE status = 'scheduled'"
    " UNION ALL SELECT MIN(lease_until_ms) FROM pushes WHERE status = 'resolving'"
    " UNION ALL SELECT MIN(expires_at_ms) FROM pushes WHERE status = 'sending'"
    " UNION ALL SELECT MIN(expires_at_ms) FROM pushes WHERE status = 'dispatched') AS moments"
)


def due(connection: Connection, now_ms: int, lease_ms: int, limit: int) -> list[Due]:
    """See PushWork.due."""
    found = connection.exec_driver_sql(_DUE, (now_ms, now_ms, limit)).fetchall()
    for push_no, lease_no in found:
        connection.exec_driver_sql(_LEASE, (lease_no, now_ms + lease_ms, push_no)).close()
    return [Due(push_no, lease_no, push_records.read_new(connection, push_no)) for push_no, lease_no in found]


def begin(connection: Connection, taken: Due, unresolved: int, sample: Sequence[str], now_ms: int) -> bool:
    """Moves a due push on to sending; False where the lease is over."""
    # What is for those who are online now counts from now, however late it begins.
    expires_at_ms = now_ms + TTL_0_GRACE_MS if taken.new.ttl_s == 0 else taken.new.expires_at_ms
    changed = (now_ms, expires_at_ms, unresolved, push_records.sample_text(sample))
    result = connection.exec_driver_sql(_BEGIN, (*changed, taken.push_no, taken.lease_no, now_ms))
    return result.rowcount == 1


def give_up(connection: Connection, taken: Due, reason: str, now_ms: int) -> None:
    """See PushWork.give_up."""
    values = (fitting(reason, _MAX_FAILURE_CHARACTERS), now_ms, taken.push_no, taken.lease_no)
    connection.exec_driver_sql(_GIVE_UP, values).close()


def over(connection: Connection, now_ms: int, limit: int) -> list[int]:
    """Pushes whose time to live is over."""
    return [push_no for (push_no,) in connection.exec_driver_sql(_OVER, (now_ms, limit)).fetchall()]


def half_canceled(connection: Connection, since_ms: int, limit: int) -> list[int]:
    """Pushes canceled since then whose cancelling was never finished."""
    return [push_no for (push_no,) in connection.exec_driver_sql(_HALF_CANCELED, (since_ms, limit)).fetchall()]


def next_moment_ms(connection: Connection) -> int | None:
    """When the next push is due or over; None where none is."""
    moment: int | None = connection.exec_driver_sql(_NEXT_MOMENT).scalar()
    return moment
