"""Where messages, records and connections stand, by key or within bounds: read when somebody asks."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from longwire.adapters.sql import bulk
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.messages import unpacked
from longwire.ids import prefixed
from longwire.model import APPLICATION_NO, Outcome
from longwire.operations_model import AuditEntry, PastSession
from longwire.ports.trace_rows import (
    Letter,
    MessageRow,
    ReceiverMessage,
    ReceiverRow,
    RefKind,
    TraceRef,
    UplinkRow,
    WebhookProgress,
)

_MESSAGES = (
    'SELECT seq, sender_no, sender, message_id, "to", kind, sent_at_ms, expires_at_ms, trace, LENGTH(payload),'
    " receivers FROM messages WHERE message_id = ? ORDER BY seq LIMIT ?"
)
_INBOX = "SELECT device_no FROM inbox WHERE seq = ? AND device_no IN ({rows})"
_RECEIPTS = "SELECT device_no, outcome, at_ms, node_id FROM receipts WHERE seq = ? AND device_no IN ({rows})"
_ENDED = "SELECT device_no FROM receipts WHERE seq = ? ORDER BY device_no LIMIT ?"
_BEFORE = (
    "SELECT COUNT(*) FROM (SELECT 1 FROM inbox WHERE device_no = ? AND seq < ? AND expires_at_ms > ? LIMIT ?) AS found"
)
_UPLINK = (
    'SELECT device_no, device_id, message_id, kind, sent_at_ms, trace, LENGTH(payload), "offset", log_position'
    " FROM uplink WHERE message_id = ? LIMIT ?"
)
_CURSOR = 'SELECT "offset" FROM uplink_cursors WHERE consumer = ?'
_BEHIND = 'SELECT COUNT(*) FROM (SELECT 1 FROM uplink WHERE "offset" > ? AND "offset" < ? LIMIT ?) AS found'
# In two steps: what is passed over is passed over without its payload.
_LETTER_NOS = (
    "SELECT letter_no FROM (SELECT letter_no, message_id FROM dead_letters WHERE buried_at_ms >= ?"
    " ORDER BY buried_at_ms DESC LIMIT ?) AS latest WHERE message_id = ?"
)
_LETTERS = (
    "SELECT device_no, device_id, message_id, kind, sent_at_ms, trace, LENGTH(payload), letter_no, consumer, error,"
    " buried_at_ms, replayed_at_ms FROM dead_letters WHERE letter_no IN ({rows})"
)
_REFS = "SELECT kind, ref, at_ms FROM trace_refs WHERE trace_id = ? ORDER BY kind, ref LIMIT ?"
_SESSION = "SELECT device_no, epoch, began_at_ms, ended_at_ms, node_id, transport, close_code FROM past_sessions"
_SESSIONS = f"{_SESSION} WHERE device_no = ? AND epoch < ? ORDER BY epoch DESC LIMIT ?"
_SESSIONS_AT = f"{_SESSION} WHERE device_no = ? AND ended_at_ms >= ? AND began_at_ms <= ? ORDER BY epoch LIMIT ?"
_HEAD = 'm.seq, m.message_id, m.sender, m."to", m.kind, m.sent_at_ms, m.expires_at_ms'
_WAITING = (
    f"SELECT {_HEAD}, NULL, 0 FROM inbox i JOIN messages m ON m.seq = i.seq WHERE i.device_no = ?"
    " ORDER BY i.seq DESC LIMIT ?"
)
# Bounded by rows, of which a message to a group has many: an index by device would cost each acknowledgement a random
# page.
_FURTHEST = "SELECT seq FROM receipts ORDER BY seq DESC, device_no DESC LIMIT 1 OFFSET ?"
_RECENT = (
    f"SELECT {_HEAD}, r.outcome, r.at_ms FROM receipts r JOIN messages m ON m.seq = r.seq"
    " WHERE r.seq > ? AND r.device_no = ? ORDER BY r.seq DESC LIMIT ?"
)
_WEBHOOKS = "SELECT webhook_no, kinds, cursor FROM webhooks WHERE created_at_ms <= ?"
_EVENTS = (
    "SELECT body FROM (SELECT kind, device_no, body FROM events WHERE event_no > ? ORDER BY event_no LIMIT ?) AS next"
    " WHERE kind = ? AND device_no = ?"
)
_MORE_EVENTS = "SELECT event_no FROM events WHERE event_no > ? ORDER BY event_no LIMIT 1 OFFSET ?"
_WEBHOOK_LETTERS = "SELECT body FROM webhook_letters WHERE buried_at_ms >= ? ORDER BY buried_at_ms LIMIT ?"
_REQUEST = (
    "SELECT at_ms, caller, action, target, status, request_id, audit_no FROM audit WHERE request_id = ?"
    " ORDER BY audit_no DESC LIMIT 1"
)
_SENDERS = 20
"""Of one id: a sender makes its own."""
_BEFORE_TO = 1_000
_BEHIND_TO = 10_000
_LETTERS_LOOKED_AT = 10_000
_RECEIPTS_LOOKED_AT = 200_000
_EVENTS_LOOKED_AT = 5_000
_WEBHOOK_LETTERS_LOOKED_AT = 20
_NEWEST = 1 << 62
_ACKED = "message.acked"


class _Buried(NamedTuple):
    """A record as its dead letter has it, and the letter."""

    record: tuple[Any, ...]
    letter: Letter


class SqlTraceRows:
    """ports.trace_rows.TraceRows on one database. ``consumer``: as whom the application reads the uplink log."""

    def __init__(self, database: Database, consumer: str = "application") -> None:
        self._database = database
        self._consumer = consumer

    async def messages(self, message_id: bytes) -> list[MessageRow]:
        values = (message_id, _SENDERS)
        return await self._database.read(lambda c: [_message_of(row) for row in c.exec_driver_sql(_MESSAGES, values)])

    async def receivers(self, message: MessageRow, device_nos: Sequence[int] | None, limit: int) -> list[ReceiverRow]:
        return await self._database.read(lambda c: _receivers(c, message, device_nos, limit))

    async def before(self, device_no: int, seq: int, now_ms: int) -> int:
        values = (device_no, seq, now_ms, _BEFORE_TO)
        count: int = await self._database.read(lambda c: c.exec_driver_sql(_BEFORE, values).scalar_one())
        return count

    async def uplink(self, message_id: bytes) -> list[UplinkRow]:
        return await self._database.read(lambda c: _uplink(c, message_id, self._consumer))

    async def refs(self, trace_id: bytes, limit: int = 100) -> list[TraceRef]:
        def read(connection: Connection) -> list[TraceRef]:
            rows = connection.exec_driver_sql(_REFS, (trace_id, limit))
            found = [TraceRef(RefKind(kind), bytes(ref), at_ms) for kind, ref, at_ms in rows]
            return sorted(found, key=lambda ref: ref.at_ms)

        return await self._database.read(read)

    async def past_sessions(self, device_no: int, before_epoch: int, limit: int) -> list[PastSession]:
        values = (device_no, before_epoch or _NEWEST, limit)
        return await self._database.read(lambda c: [PastSession(*row) for row in c.exec_driver_sql(_SESSIONS, values)])

    async def sessions_at(self, device_no: int, from_ms: int, until_ms: int, limit: int) -> list[PastSession]:
        values = (device_no, from_ms, until_ms, limit)
        return await self._database.read(
            lambda c: [PastSession(*row) for row in c.exec_driver_sql(_SESSIONS_AT, values)]
        )

    async def recent_messages(self, device_no: int, limit: int) -> list[ReceiverMessage]:
        def read(connection: Connection) -> list[ReceiverMessage]:
            waits = connection.exec_driver_sql(_WAITING, (device_no, limit)).fetchall()
            after = connection.exec_driver_sql(_FURTHEST, (_RECEIPTS_LOOKED_AT,)).scalar() or 0
            ended = connection.exec_driver_sql(_RECENT, (after, device_no, limit)).fetchall()
            newest = sorted([*waits, *ended], key=lambda row: -row[0])[:limit]
            return [_receiver_message(row) for row in newest]

        return await self._database.read(read)

    async def webhook_progress(self, message: MessageRow, device_no: int, acked_at_ms: int) -> WebhookProgress:
        if message.sender_no != APPLICATION_NO:
            return WebhookProgress.NOBODY  # webhooks are told of the application's messages
        return await self._database.read(lambda c: _webhook_progress(c, message, device_no, acked_at_ms))

    async def request(self, request_id: str) -> AuditEntry | None:
        row = await self._database.read(lambda c: c.exec_driver_sql(_REQUEST, (request_id,)).first())
        return None if row is None else AuditEntry(*row)


def _message_of(row: Sequence[Any]) -> MessageRow:
    seq, sender_no, sender, message_id, to, kind, sent_at_ms, expires_at_ms, trace, size, receivers = row
    numbers = None if receivers is None else tuple(unpacked(bytes(receivers)))
    return MessageRow(
        seq, sender_no, sender, bytes(message_id), to, kind, sent_at_ms, expires_at_ms, bytes(trace), size, numbers
    )


def _receiver_message(row: Sequence[Any]) -> ReceiverMessage:
    seq, message_id, sender, to, kind, sent_at_ms, expires_at_ms, outcome, at_ms = row
    ended_as = None if outcome is None else Outcome(outcome)
    return ReceiverMessage(seq, bytes(message_id), sender, to, kind, sent_at_ms, expires_at_ms, ended_as, at_ms)


def _receivers(
    connection: Connection, message: MessageRow, device_nos: Sequence[int] | None, limit: int
) -> list[ReceiverRow]:
    numbers: Sequence[int]
    if message.receivers is None:
        # Whom it was for was not kept: those who are asked about, or those for whom it has ended.
        ended = connection.exec_driver_sql(_ENDED, (message.seq, limit))
        numbers = [number for (number,) in ended] if device_nos is None else device_nos[:limit]
    elif device_nos is None:
        numbers = message.receivers[:limit]
    else:
        known = set(message.receivers)
        numbers = [number for number in device_nos if number in known][:limit]
    waits = {number for (number,) in bulk.select_in(connection, _INBOX, numbers, message.seq)}
    ends = {row[0]: row[1:] for row in bulk.select_in(connection, _RECEIPTS, numbers, message.seq)}
    rows: list[ReceiverRow] = []
    for number in numbers:
        outcome, at_ms, node_id = ends.get(number, (None, 0, ""))
        if outcome is None and number not in waits and message.receivers is None:
            continue
        ended_as = None if outcome is None else Outcome(outcome)
        rows.append(ReceiverRow(number, ended_as, at_ms, node_id, number in waits))
    return rows


def _uplink(connection: Connection, message_id: bytes, consumer: str) -> list[UplinkRow]:
    kept = connection.exec_driver_sql(_UPLINK, (message_id, _SENDERS)).fetchall()
    since_ms = min((row[4] for row in kept), default=0)
    numbers = connection.exec_driver_sql(_LETTER_NOS, (since_ms, _LETTERS_LOOKED_AT, message_id))
    latest = bulk.select_in(connection, _LETTERS, [number for (number,) in numbers])
    buried = [_Buried((*row[:2], bytes(row[2]), *row[3:5], bytes(row[5]), row[6]), Letter(*row[7:])) for row in latest]
    buried.sort(key=lambda one: -one.letter.letter_no)
    rows: list[UplinkRow] = []
    for device_no, device_id, found_id, kind, sent_at_ms, trace, size, offset, position in kept:
        letters = tuple(one.letter for one in buried if one.record[0] == device_no)
        behind = None if position is not None else _behind(connection, consumer, offset)
        record = (device_no, device_id, bytes(found_id), kind, sent_at_ms, bytes(trace), size)
        rows.append(UplinkRow(*record, offset, behind, letters))
    known = {row.device_no for row in rows}
    left = {one.record[0]: one.record for one in buried if one.record[0] not in known}
    for device_no, record in left.items():
        letters = tuple(one.letter for one in buried if one.record[0] == device_no)
        rows.append(UplinkRow(*record, 0, None, letters))
    return rows


def _behind(connection: Connection, consumer: str, offset: int) -> int:
    """How many records, this one included, the consumer has not handled; 0: it is past this one."""
    cursor = connection.exec_driver_sql(_CURSOR, (consumer,)).scalar() or 0
    if cursor >= offset:
        return 0
    before: int = connection.exec_driver_sql(_BEHIND, (cursor, offset, _BEHIND_TO)).scalar_one()
    return before + 1


def _webhook_progress(connection: Connection, message: MessageRow, device_no: int, acked_at_ms: int) -> WebhookProgress:
    webhooks = connection.exec_driver_sql(_WEBHOOKS, (acked_at_ms,)).fetchall()
    cursors = [cursor for _, kinds, cursor in webhooks if {_ACKED, "message.*"} & set(kinds.split())]
    if not cursors:
        return WebhookProgress.NOBODY
    told = prefixed("msg", message.message_id).encode()
    lowest = min(cursors)
    waiting = connection.exec_driver_sql(_EVENTS, (lowest, _EVENTS_LOOKED_AT, _ACKED, device_no))
    if any(told in bytes(body) for (body,) in waiting):
        return WebhookProgress.WAITING
    letters = connection.exec_driver_sql(_WEBHOOK_LETTERS, (acked_at_ms, _WEBHOOK_LETTERS_LOOKED_AT)).fetchall()
    if any(told in bytes(body) for (body,) in letters):
        return WebhookProgress.BURIED
    if len(letters) == _WEBHOOK_LETTERS_LOOKED_AT:
        return WebhookProgress.UNKNOWN  # a later letter may have it
    if connection.exec_driver_sql(_MORE_EVENTS, (lowest, _EVENTS_LOOKED_AT)).first() is not None:
        return WebhookProgress.UNKNOWN
    return WebhookProgress.TOLD
