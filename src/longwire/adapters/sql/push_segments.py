"""Rows of ``push_segments``: loaded, changed, settled and stored here, within a transaction of the caller's.

    merge     acks and writes are OR-ed in, whoever tells them, however often
    advance   a push whose segments are all done is dispatched; one with nobody left to wait for is completed

Counts, ``rest`` and what depends on it are written with every change of a bitmap (``store``), so that they agree.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pyroaring import BitMap
from sqlalchemy import Connection

from longwire import bitmaps
from longwire.adapters.sql import bulk, push_records
from longwire.adapters.sql.push_events import PushEvents
from longwire.funnel import Segment
from longwire.histogram import Histogram
from longwire.push_model import Dispatched, Goes, PushStatus, SegmentCounts, SegmentReceipts

READY, LEASED, DONE = 0, 1, 2
DEVICE_DELETED = "device-deleted"

BITMAPS = ("targeted", "written", "acked", "withdrawn", "canceled", "collapsed", "failed", "expired")
COUNTS = (
    "n_targeted",
    "n_written",
    "n_acked",
    "n_withdrawn",
    "n_canceled",
    "n_collapsed",
    "n_failed",
    "n_expired",
    "n_rest",
)
_INSERT = (
    "INSERT INTO push_segments (push_no, segment, priority, is_open, rest_min, rest_max, n_targeted, n_rest, rest,"
    " targeted) VALUES {rows}"
)
_LOAD = (
    "SELECT s.push_no, s.segment, s.state, s.cursor, s.lease_no, s.lease_until_ms, s.attempts, s.n_online, s.n_handled,"
    f" s.latency, {', '.join(f's.{name}' for name in BITMAPS)},"
    " p.status, p.is_paused, p.ttl_s, p.expires_at_ms, p.rate_per_s"
    " FROM push_segments s JOIN pushes p ON p.push_no = s.push_no WHERE s.push_no = ?"
)
_LOAD_ONE = f"{_LOAD} AND s.segment = ?"
_LOAD_ALL = f"{_LOAD} ORDER BY s.segment"
_CHANGED = ", ".join(
    f"{name} = ?"
    for name in (
        *("state", "cursor", "lease_no", "lease_until_ms", "attempts", "n_online", "n_handled", "latency"),
        *("is_open", "rest_min", "rest_max", "rest"),
        *COUNTS,
        *BITMAPS[1:],
    )
)
_STORE = f"UPDATE push_segments SET {_CHANGED} WHERE push_no = ? AND segment = ?"
_STANDING = """
SELECT p.status, p.is_paused, SUM(s.n_rest), MIN(s.state), MAX(CASE WHEN s.state = 1 THEN 1 ELSE 0 END)
FROM pushes p JOIN push_segments s ON s.push_no = p.push_no WHERE p.push_no = ? GROUP BY p.push_no
"""
_COMPLETE = "UPDATE pushes SET status = 'completed', ended_at_ms = ? WHERE push_no = ?"
_SHUT = (
    "UPDATE push_segments SET is_open = 0, state = CASE state WHEN 0 THEN 2 ELSE state END"
    " WHERE push_no = ? AND (is_open = 1 OR state = 0)"
)
_VOID = "UPDATE push_segments SET is_open = 0, state = 2, lease_no = lease_no + 1 WHERE push_no = ?"
_SEGMENTS = "SELECT segment FROM push_segments WHERE push_no = ?"
_OLDER = (
    "SELECT push_no FROM pushes WHERE collapse_key = ? AND sender_no = ? AND push_no <> ?"
    " AND status IN ('sending', 'dispatched') AND expires_at_ms > ? ORDER BY push_no"
)
_OPEN = "SELECT segment FROM push_segments WHERE push_no = ? AND is_open = 1"
_WAITS_FOR = """
SELECT s.push_no FROM push_segments s INDEXED BY ix_push_segments_open JOIN pushes p ON p.push_no = s.push_no
WHERE s.segment = ? AND s.is_open = 1 AND s.rest_min <= ? AND s.rest_max >= ? AND p.expires_at_ms > ? ORDER BY s.push_no
"""
_FAILURES = "INSERT OR IGNORE INTO push_failures (push_no, device_no, reason, at_ms) VALUES {rows}"
_MINUTES = """
INSERT INTO push_minutes (push_no, minute, written, acked) VALUES {rows}
ON CONFLICT (push_no, minute) DO UPDATE SET written = push_minutes.written + excluded.written,
    acked = push_minutes.acked + excluded.acked
"""


@dataclass(slots=True)
class Effects:
    """What a write changes in this process's memory, once it is durable."""

    added: BitMap = field(default_factory=BitMap)
    """Devices for whom a push waits now."""
    changed: set[int] = field(default_factory=set)
    """Segments in which fewer devices wait."""
    ended: set[int] = field(default_factory=set)
    """Pushes that devices are not written any more."""
    has_work: bool = False
    """Workers may find something to claim."""
    moves_schedule: bool = False
    """Something may be due or over sooner than before."""


class Row:
    """A segment's row while it is being changed, and what it must know of its push."""

    __slots__ = (
        "attempts",
        "cursor",
        "devices",
        "expires_at_ms",
        "handled",
        "is_paused",
        "latency",
        "lease_no",
        "lease_until_ms",
        "online",
        "push_no",
        "rate_per_s",
        "segment",
        "state",
        "status",
        "ttl_s",
    )

    def __init__(self, row: Sequence[Any]) -> None:
        (
            self.push_no,
            self.segment,
            self.state,
            self.cursor,
            self.lease_no,
            self.lease_until_ms,
            self.attempts,
            self.online,
            self.handled,
            latency,
            *blobs,
            status,
            self.is_paused,
            self.ttl_s,
            self.expires_at_ms,
            self.rate_per_s,
        ) = row
        self.latency = Histogram.load(latency)
        self.status = PushStatus(status)
        self.devices = load_devices(blobs)

    @property
    def is_going(self) -> bool:
        """Whether workers may go on with it."""
        return self.status is PushStatus.SENDING and not self.is_paused

    def is_open(self) -> bool:
        """Whether somebody waits for it who may still be written."""
        is_live = self.status in (PushStatus.SENDING, PushStatus.DISPATCHED) and self.ttl_s > 0
        return is_live and bool(self.devices.rest)

    def finish(self) -> None:
        """Everybody in it is handled."""
        self.state = DONE
        self.cursor = bitmaps.last_of(self.segment)
        self.handled = len(self.devices.targeted)
        if self.ttl_s == 0:
            self.devices.settle()
            self.devices.expire_unwritten()


def load_devices(blobs: Sequence[bytes | None]) -> Segment:
    """The sets of a segment from its blobs, in the order of BITMAPS, settled."""
    targeted, *others = (bitmaps.load(blob) for blob in blobs)
    devices = Segment(targeted)
    for name, members in zip(BITMAPS[1:], others, strict=True):
        setattr(devices, name, members)
    devices.settle()
    return devices


def load(connection: Connection, push_no: int, segment: int) -> Row | None:
    row = connection.exec_driver_sql(_LOAD_ONE, (push_no, segment)).first()
    return None if row is None else Row(row)


def load_all(connection: Connection, push_no: int) -> list[Row]:
    return [Row(row) for row in connection.exec_driver_sql(_LOAD_ALL, (push_no,)).fetchall()]


def store(connection: Connection, row: Row) -> None:
    counts = row.devices.settle()
    rest = row.devices.rest
    values = (
        row.state,
        row.cursor,
        row.lease_no,
        row.lease_until_ms,
        row.attempts,
        row.online,
        row.handled,
        row.latency.dump(),
        row.is_open(),
        *bounds_of(rest),
        bitmaps.dump(rest),
        *numbers_of(counts),
        *(bitmaps.dump(getattr(row.devices, name)) for name in BITMAPS[1:]),
        row.push_no,
        row.segment,
    )
    connection.exec_driver_sql(_STORE, values).close()


def bounds_of(rest: BitMap) -> tuple[int, int]:
    """The lowest and the highest of those who wait; where nobody does, bounds that nobody is within."""
    return (rest.min(), rest.max()) if rest else (0, -1)


def numbers_of(counts: SegmentCounts) -> tuple[int, ...]:
    """Counts in the order of COUNTS."""
    return (
        counts.targeted,
        counts.written,
        counts.acked,
        counts.withdrawn,
        counts.canceled,
        counts.collapsed,
        counts.failed,
        counts.expired,
        counts.rest,
    )


# -- a push begins and ends -----------------------------------------------------------------------------------


def insert(
    connection: Connection, push_no: int, priority: int, ttl_s: int, devices: BitMap, effects: Effects
) -> dict[int, BitMap]:
    """Keeps the audience of a push; its parts by segment."""
    parts = bitmaps.split(devices)
    rows = []
    for segment, targeted in parts.items():
        blob = bitmaps.dump(targeted)
        size = len(targeted)
        is_open = ttl_s > 0
        rows.append((push_no, segment, priority, is_open, targeted.min(), targeted.max(), size, size, blob, blob))
    bulk.execute(connection, _INSERT, rows)
    if ttl_s > 0:
        effects.added |= devices
    effects.has_work = True
    return parts


def collapse(
    connection: Connection,
    push_no: int,
    key: str,
    sender_no: int,
    parts: dict[int, BitMap],
    now_ms: int,
    effects: Effects,
    events: PushEvents,
) -> None:
    """Ends what waits for these devices from the same sender under the same key."""
    for (older,) in connection.exec_driver_sql(_OLDER, (key, sender_no, push_no, now_ms)).fetchall():
        opened = [segment for (segment,) in connection.exec_driver_sql(_OPEN, (older,))]
        for segment in opened:
            row = load(connection, older, segment) if segment in parts else None
            if row is not None and row.devices.collapse(parts[segment]):
                store(connection, row)
                effects.changed.add(segment)
        advance(connection, older, now_ms, effects, events)


def advance(connection: Connection, push_no: int, now_ms: int, effects: Effects, events: PushEvents) -> None:
    """Moves a push on: to dispatched, when all segments are done; to completed, when nobody is left to wait for."""
    standing = connection.exec_driver_sql(_STANDING, (push_no,)).first()
    if standing is None or standing[0] not in (PushStatus.SENDING, PushStatus.DISPATCHED):
        return
    status, is_paused, rest, least, is_leased = standing
    if rest == 0 and not is_leased:
        complete(connection, push_no, now_ms, effects, events)
    elif status == PushStatus.SENDING and not is_paused and least == DONE:
        connection.exec_driver_sql("UPDATE pushes SET status = 'dispatched' WHERE push_no = ?", (push_no,)).close()


def complete(connection: Connection, push_no: int, now_ms: int, effects: Effects, events: PushEvents) -> None:
    """Ends a push of which everybody has acknowledged or is over. What is under a lease may still be told."""
    connection.exec_driver_sql(_COMPLETE, (now_ms, push_no)).close()
    _mark_changed(connection, push_no, effects)
    connection.exec_driver_sql(_SHUT, (push_no,)).close()
    if events.wants_completed():
        events.completed(connection, push_records.read(connection, push_no, now_ms), now_ms)


def void(connection: Connection, push_no: int, effects: Effects) -> None:
    """Ends every lease of the push; no claim and no catch-up gives it any more.

    A part that a worker does not see through counts as online by whom it has written to.
    """
    _mark_changed(connection, push_no, effects)
    for row in load_all(connection, push_no):
        if unseen := bitmaps.above(row.devices.written, row.cursor):
            row.online += len(unseen)
            store(connection, row)
    connection.exec_driver_sql(_VOID, (push_no,)).close()


def _mark_changed(connection: Connection, push_no: int, effects: Effects) -> None:
    effects.ended.add(push_no)
    effects.changed.update(segment for (segment,) in connection.exec_driver_sql(_OPEN, (push_no,)))


def cancel_unwritten(connection: Connection, push_no: int, now_ms: int) -> None:
    """Ends who was not written to as canceled. Those whose time is over have expired."""
    for row in load_all(connection, push_no):
        if now_ms < row.expires_at_ms:
            row.devices.cancel()
            store(connection, row)


def withdraw_rest(connection: Connection, push_no: int, now_ms: int) -> BitMap:
    """Ends who is pending as withdrawn; who may have the push."""
    told = BitMap()
    for row in load_all(connection, push_no):
        devices = row.devices
        told |= devices.written | devices.acked
        if now_ms < row.expires_at_ms:
            devices.withdraw()
        else:
            devices.expire()
        store(connection, row)
    return told


def open_rest(connection: Connection, push_no: int) -> BitMap:
    """Everybody the push waits for."""
    rows = connection.exec_driver_sql("SELECT rest FROM push_segments WHERE push_no = ? AND is_open = 1", (push_no,))
    return BitMap.union(BitMap(), *(bitmaps.load(rest) for (rest,) in rows))


def fail(connection: Connection, row: Row, devices: BitMap, reason: str, now_ms: int) -> None:
    failed = row.devices.fail(devices)
    bulk.execute(connection, _FAILURES, [(row.push_no, device_no, reason, now_ms) for device_no in failed])


# -- merges ---------------------------------------------------------------------------------------------------


def merge(
    connection: Connection,
    told: Sequence[SegmentReceipts | Dispatched],
    now_ms: int,
    effects: Effects,
    events: PushEvents,
) -> list[Goes]:
    """Merges what nodes and workers tell; a row is read and written once, however many speak of it.

    With an answer for each that is told; only that to a Dispatched says something. What is told of a segment that is
    not kept any more is dropped.
    """
    answers = [Goes(is_held=False)] * len(told)
    by_row: dict[tuple[int, int], list[int]] = {}
    for index, part in enumerate(told):
        by_row.setdefault((part.push_no, part.segment), []).append(index)
    grown: Counter[tuple[int, str]] = Counter()
    for (push_no, segment), indexes in by_row.items():
        row = load(connection, push_no, segment)
        if row is None:
            continue
        acked = BitMap()
        written_before = len(row.devices.written)
        for index in indexes:
            part = told[index]
            if isinstance(part, SegmentReceipts):
                acked |= _receive(row, part)
            else:
                answers[index] = _dispatch(row, part, effects)
        store(connection, row)
        grown[push_no, "written"] += len(row.devices.written) - written_before
        grown[push_no, "acked"] += len(acked)
        effects.changed.add(segment)
        events.acked(connection, push_no, acked, now_ms)
    _note_minute(connection, grown, now_ms)
    for push_no in {push_no for push_no, _ in by_row}:
        advance(connection, push_no, now_ms, effects, events)
    return answers


def _note_minute(connection: Connection, grown: Counter[tuple[int, str]], now_ms: int) -> None:
    """Keeps by how much the counts of pushes grew (PushProgress)."""
    minute = now_ms // 60_000
    rows = [
        (push_no, minute, grown[push_no, "written"], grown[push_no, "acked"])
        for push_no in sorted({push_no for (push_no, _), count in grown.items() if count})
    ]
    bulk.execute(connection, _MINUTES, rows)


def _receive(row: Row, receipts: SegmentReceipts) -> BitMap:
    row.devices.write(receipts.written)
    acked = row.devices.ack(receipts.acked)
    if acked:
        # Told before, and counted then.
        row.latency.merge(receipts.latency)
    return acked


def _dispatch(row: Row, done: Dispatched, effects: Effects) -> Goes:
    known = row.devices.written.copy()
    row.devices.write(done.written)
    if row.state != LEASED or row.lease_no != done.lease_no:
        if row.status is not PushStatus.SENDING:
            # A cancel overtook the report. Nobody does this part again, so that it counts here (see void).
            row.online += len(bitmaps.above(row.devices.written - known, row.cursor))
        return Goes(is_held=False)
    row.online += done.online
    row.handled += done.handled
    row.cursor = max(row.cursor, done.cursor)
    if done.handled or done.is_done:
        # What a worker tells of a round that failed forgives no errors: it would never come to the last one.
        row.attempts = 0
    if done.is_done:
        row.finish()
        # The next segment of a paced push is free now.
        effects.has_work = effects.has_work or row.rate_per_s is not None
        return Goes(is_held=row.is_going, rate_per_s=row.rate_per_s)
    if not row.is_going:
        row.state, row.lease_until_ms = READY if row.status is PushStatus.SENDING else DONE, 0
        return Goes(is_held=False)
    row.lease_until_ms = done.lease_until_ms
    return Goes(is_held=True, rate_per_s=row.rate_per_s)


def forget_device(connection: Connection, device_no: int, now_ms: int, events: PushEvents | None = None) -> None:
    """Fails what waits for a device that is being deleted, in the transaction of its deletion."""
    segment = bitmaps.segment_of(device_no)
    values = (segment, device_no, device_no, now_ms)
    gone = BitMap([device_no])
    for (push_no,) in connection.exec_driver_sql(_WAITS_FOR, values).fetchall():
        row = load(connection, push_no, segment)
        if row is not None and device_no in row.devices.rest:
            fail(connection, row, gone, DEVICE_DELETED, now_ms)
            store(connection, row)
            advance(connection, push_no, now_ms, Effects(), events or PushEvents(None, lambda _kind: False))
