"""What became of the devices of a push, from its bitmaps; and whether numbers and bitmaps say the same."""

from collections.abc import Sequence
from typing import Any

from pyroaring import BitMap
from sqlalchemy import Connection

from longwire import bitmaps
from longwire.adapters.sql import bulk
from longwire.adapters.sql.push_segments import BITMAPS, COUNTS, bounds_of, load_devices, numbers_of
from longwire.ids import prefixed
from longwire.push_model import RecipientState

_SETS = ", ".join(f"s.{name}" for name in BITMAPS)
_PUSH = "SELECT expires_at_ms, totals FROM pushes WHERE push_no = ?"
_DEVICES = f"SELECT {_SETS} FROM push_segments s WHERE s.push_no = ?"
_REASON = "SELECT reason FROM push_failures WHERE push_no = ? AND device_no = ?"
_REASONS = "SELECT device_no, reason FROM push_failures WHERE push_no = ? AND device_no IN ({rows})"
_CHECKED = (
    f"SELECT s.push_no, s.segment, p.push_id, p.status, p.ttl_s, s.is_open, s.rest_min, s.rest_max, s.rest,"
    f" {', '.join(f's.{name}' for name in COUNTS)}, {_SETS}"
    " FROM pushes p JOIN push_segments s ON s.push_no = p.push_no"
    " WHERE (p.status IN ('sending', 'dispatched') OR p.ended_at_ms > ?) AND s.push_no >= ?"
    " AND (s.push_no > ? OR s.segment > ?)"
    " ORDER BY s.push_no, s.segment LIMIT ?"
)
_LATELY_MS = 3_600_000
_FIXED = 9
"""Columns before the counts."""


def in_state(connection: Connection, push_no: int, state: RecipientState, now_ms: int) -> BitMap | None:
    """See PushStore.in_state."""
    push = connection.exec_driver_sql(_PUSH, (push_no,)).first()
    if push is None or push.totals is not None:
        return None
    is_over = now_ms >= push.expires_at_ms
    found = BitMap()
    for blobs in connection.exec_driver_sql(_DEVICES, (push_no,)):
        by_state = load_devices(blobs).by_state()
        if is_over:
            by_state[RecipientState.EXPIRED] |= by_state.pop(RecipientState.PENDING)
        found |= by_state.get(state, BitMap())
    return found


def state_of(
    connection: Connection, push_no: int, device_no: int, now_ms: int
) -> tuple[RecipientState, bool, str] | None:
    """See PushStore.state_of."""
    one = f"{_DEVICES} AND s.segment = ?"
    blobs = connection.exec_driver_sql(one, (push_no, bitmaps.segment_of(device_no))).first()
    push = connection.exec_driver_sql(_PUSH, (push_no,)).first()
    if blobs is None or push is None:
        return None
    devices = load_devices(blobs)
    state = next((state for state, members in devices.by_state().items() if device_no in members), None)
    if state is None:
        return None
    if state is RecipientState.PENDING and now_ms >= push.expires_at_ms:
        state = RecipientState.EXPIRED
    reason = ""
    if state is RecipientState.FAILED:
        reason = connection.exec_driver_sql(_REASON, (push_no, device_no)).scalar() or ""
    return state, device_no in devices.written, reason


def reasons(connection: Connection, push_no: int, device_nos: Sequence[int]) -> dict[int, str]:
    """See PushStore.reasons."""
    return dict(map(tuple, bulk.select_in(connection, _REASONS, device_nos, push_no)))


def drift(
    connection: Connection, after: tuple[int, int], limit: int, now_ms: int
) -> tuple[list[str], tuple[int, int] | None]:
    """See PushStore.drift."""
    rows = connection.exec_driver_sql(_CHECKED, (now_ms - _LATELY_MS, after[0], *after, limit)).fetchall()
    found = [f"{prefixed('psh', row[2])} segment {row[1]}: {fault}" for row in rows for fault in _faults(row)]
    return found, (rows[-1][0], rows[-1][1]) if len(rows) == limit else None


def _faults(row: Sequence[Any]) -> list[str]:
    _, segment, _, status, ttl_s, is_open, rest_min, rest_max, rest_blob = row[:_FIXED]
    kept = tuple(row[_FIXED : _FIXED + len(COUNTS)])
    devices = load_devices(row[_FIXED + len(COUNTS) :])
    rest = bitmaps.load(rest_blob)
    faults = []
    if kept != (counted := numbers_of(devices.settle())):
        differing = [
            f"{name} is {old}, the bitmap says {new}"
            for name, old, new in zip(COUNTS, kept, counted, strict=True)
            if old != new
        ]
        faults.append(", ".join(differing))
    if rest != devices.rest:
        faults.append(f"rest differs from the bitmaps by {len(rest ^ devices.rest)} devices")
    if (rest_min, rest_max) != bounds_of(devices.rest):
        faults.append(f"rest is said to lie within {rest_min} and {rest_max}")
    if bool(is_open) != (bool(devices.rest) and ttl_s > 0 and status in ("sending", "dispatched")):
        faults.append(f"is_open is {bool(is_open)} while the push is {status} and {len(devices.rest)} devices wait")
    if bitmaps.segments(devices.targeted) != [segment]:
        faults.append(f"its devices are of the segments {bitmaps.segments(devices.targeted)}")
    return faults
