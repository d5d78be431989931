"""The message store on SQL: messages, inboxes and receipts, written in groups.

A group of messages is a handful of statements whatever its size: insert the messages (a repeat is left out by the
unique key), insert the inbox rows of those that are new, end what they collapse, then look whether an inbox has
grown past its bound. The bound is looked at after the fact because it almost never holds, and because the rows
just written are the ones that are in memory.
"""

import struct
from collections.abc import Sequence
from functools import partial

from pyroaring import BitMap
from sqlalchemy import Connection

from longwire.adapters.embedded.waiting import EmbeddedWaiting
from longwire.adapters.sql import bulk
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.domains import Domain, take
from longwire.adapters.sql.events import SqlEvents
from longwire.adapters.sql.trace_refs import note_refs
from longwire.clock import Clock
from longwire.ids import prefixed
from longwire.limits import MAX_TTL_S
from longwire.model import APPLICATION_NO, Committed, Envelope, InboxQuery, Outcome, Receipt, Waiting
from longwire.operations_model import Event
from longwire.ports.messages import CommitCallback
from longwire.ports.trace_rows import RefKind
from longwire.ports.waiting import WaitingHints
from longwire.reasons import Status

_INSERT_MESSAGES = (
    'INSERT OR IGNORE INTO messages (seq, sender_no, message_id, sender, "to", kind, payload, collapse_key,'
    " sent_at_ms, expires_at_ms, trace, receivers) VALUES {rows}"
)
_LAST = "SELECT seq, sent_at_ms FROM messages ORDER BY seq DESC LIMIT 1"
_CLAMP = "UPDATE inbox SET expires_at_ms = ? WHERE expires_at_ms > ?"
_INSERT_INBOX = "INSERT INTO inbox (device_no, seq, expires_at_ms) VALUES {rows}"
_DELETE_INBOX = "DELETE FROM inbox WHERE (device_no, seq) IN (VALUES {rows})"
_INSERT_RECEIPTS = "INSERT OR IGNORE INTO receipts (seq, device_no, outcome, at_ms, node_id) VALUES {rows}"
_KEPT = "SELECT seq FROM messages WHERE seq BETWEEN ? AND ?"
_OVERFULL = "SELECT device_no, COUNT(*) FROM inbox WHERE device_no IN ({rows}) GROUP BY device_no HAVING COUNT(*) > "
_COLLAPSED = (
    "SELECT inbox.seq FROM inbox JOIN messages ON messages.seq = inbox.seq WHERE inbox.device_no = ?"
    " AND inbox.seq < ? AND messages.sender_no = ? AND messages.collapse_key = ?"
)
_MESSAGE = (
    'SELECT m.seq, m.message_id, m.sender, m."to", m.kind, m.payload, m.collapse_key, m.sent_at_ms,'
    " m.expires_at_ms, m.trace FROM inbox i JOIN messages m ON m.seq = i.seq"
)
_WAITING = f"{_MESSAGE} WHERE i.device_no = ? AND i.seq > ? AND i.expires_at_ms > ? ORDER BY i.seq LIMIT ?"
_OLDEST = "SELECT device_no, MIN(seq) FROM inbox WHERE expires_at_ms > ? AND device_no IN ({rows}) GROUP BY device_no"
_ACKED_BY = f"SELECT device_no FROM receipts WHERE seq = ? AND outcome = {int(Outcome.ACKED)}"
_APPLICATIONS = f"SELECT seq, message_id FROM messages WHERE sender_no = {APPLICATION_NO} AND seq IN ({{rows}})"
_IN_SEGMENT = "SELECT DISTINCT device_no FROM inbox WHERE device_no BETWEEN ? AND ?"
_HIGHEST = "SELECT MAX(device_no) FROM devices"
_ONE = f"{_MESSAGE} WHERE i.device_no = ? AND i.seq = ? AND i.expires_at_ms > ?"

ENVELOPE_BYTES = 512
"""What a queued message takes beside its payload, about."""

_CLOCKS_DIFFER_MS = 60_000
"""Of processes that share a database: no clock that was set back."""

_Commit = tuple[Envelope, CommitCallback]


class _InboxFull(Exception):
    """A message of the group is refused: its receiver is online, and as many wait for it as may."""


class SqlMessageStore:
    """ports.messages.MessageStore on one database. What becomes of the application's messages goes to ``events``.

    ``hints`` say for whom something may wait; without them the store keeps its own, for one process.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        max_inbox: int,
        events: SqlEvents | None = None,
        hints: WaitingHints | None = None,
    ) -> None:
        self._database = database
        self._events = events
        self._clock = clock
        self._max_inbox = max_inbox
        self._next_seq = 1
        """On SQLite, where the writer alone gives places."""
        self._hints: WaitingHints = EmbeddedWaiting() if hints is None else hints
        # Acknowledgements first: what they end takes no room from the messages of the same group.
        self._receipts = database.stage(
            self._end_acked, _nothing, self._receipt_refused, Domain.MESSAGES, Domain.EVENTS
        )
        self._commits = database.stage(self._write, self._committed, self._refused, Domain.MESSAGES, Domain.EVENTS)
        self._told = database.stage(_subtract_missed, _nothing, _nothing, Domain.MESSAGES)
        self.queued_bytes = 0

    async def start(self) -> None:
        """Finds the place of the last message, and for whom something waits where the hints are the process's own.

        Where the wall clock stands before the last message, what is left of a TTL is clamped to the maximum
        (DESIGN §7).
        """
        last = await self._database.read(lambda c: c.exec_driver_sql(_LAST).first())
        now_ms = self._clock.now_ms()
        if last is not None:
            self._next_seq = last.seq + 1
            if last.sent_at_ms > now_ms + _CLOCKS_DIFFER_MS:
                latest = (now_ms + MAX_TTL_S * 1000,) * 2
                await self._database.write(lambda c: c.exec_driver_sql(_CLAMP, latest).close(), Domain.MESSAGES)
        if isinstance(self._hints, EmbeddedWaiting):
            highest = await self._database.read(lambda c: c.exec_driver_sql(_HIGHEST).scalar() or 0)
            for segment in range((highest >> 16) + 1):
                await self._hints.rebuild(segment, self.waits_in)

    # -- writes -----------------------------------------------------------------------------------------------

    def commit(self, envelope: Envelope, done: CommitCallback) -> None:
        self.queued_bytes += len(envelope.payload) + ENVELOPE_BYTES
        self._commits.add((envelope, done))

    def acknowledge(self, receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            self._receipts.add(receipt)

    def told_missed(self, device_no: int, count: int) -> None:
        self._told.add((count, device_no))

    def _committed(self, item: _Commit, outcome: Committed) -> None:
        envelope, done = item
        self.queued_bytes -= len(envelope.payload) + ENVELOPE_BYTES
        # Of a repeat the first may have been committed by a process that died before it said so.
        receivers = envelope.receivers if outcome.status == Status.DUPLICATE else outcome.receivers
        self._hints.add(receivers, partial(done, envelope, outcome))

    def _refused(self, item: _Commit, error: Exception) -> None:
        is_full = isinstance(error, _InboxFull)
        self._committed(item, Committed(Status.OVERLOADED if is_full else Status.NOT_DURABLE))

    def _receipt_refused(self, receipt: Receipt, _error: Exception) -> None:
        """A receipt that is lost means a repeat, which devices drop: nothing is kept for it."""

    def _write(self, connection: Connection, items: list[_Commit]) -> list[Committed]:
        first = self._places(connection, len(items))
        envelopes = [envelope for envelope, _ in items]
        rows = [
            (
                seq,
                e.sender_no,
                e.message_id,
                e.sender,
                e.to,
                e.kind,
                e.payload,
                e.collapse_key,
                e.sent_at_ms,
                e.expires_at_ms,
                e.trace,
                packed(e.receivers),
            )
            for seq, e in enumerate(envelopes, first)
        ]
        kept = bulk.execute(connection, _INSERT_MESSAGES, rows)
        outcomes = [Committed(Status.OK, seq, e.receivers) for seq, e in enumerate(envelopes, first)]
        if kept < len(rows):
            new = {seq for (seq,) in connection.exec_driver_sql(_KEPT, (first, first + len(rows) - 1))}
            outcomes = [o if o.seq in new else Committed(Status.DUPLICATE) for o in outcomes]
        inbox = [
            (device_no, outcome.seq, envelope.expires_at_ms)
            for envelope, outcome in zip(envelopes, outcomes, strict=True)
            for device_no in outcome.receivers
        ]
        bulk.execute(connection, _INSERT_INBOX, inbox)
        note_refs(
            connection,
            RefKind.MESSAGE,
            [
                (e.trace, e.message_id, e.sent_at_ms)
                for e, outcome in zip(envelopes, outcomes, strict=True)
                if e.trace and outcome.status is Status.OK
            ],
        )
        now_ms = self._clock.now_ms()
        for envelope, outcome in zip(envelopes, outcomes, strict=True):
            if envelope.collapse_key and outcome.receivers:
                self._collapse(connection, envelope, outcome, first, outcomes, now_ms)
        self._bound(connection, envelopes, inbox, now_ms)
        return outcomes

    def _places(self, connection: Connection, count: int) -> int:
        """The first of so many new places."""
        first = take(connection, Domain.MESSAGES, count)[0]
        if first is None:
            first = self._next_seq
            self._next_seq += count
        return first

    def _collapse(
        self,
        connection: Connection,
        envelope: Envelope,
        outcome: Committed,
        first: int,
        outcomes: list[Committed],
        now_ms: int,
    ) -> None:
        """Ends what waits under the message's collapse key; it takes the newest place."""
        for device_no in outcome.receivers:
            replaced = connection.exec_driver_sql(
                _COLLAPSED, (device_no, outcome.seq, envelope.sender_no, envelope.collapse_key)
            ).fetchall()
            _end(connection, [(device_no, seq) for (seq,) in replaced], Outcome.COLLAPSED, now_ms)
            for (seq,) in replaced:
                if seq >= first:
                    # Replaced within its own group: it has not been delivered, and never will be.
                    old = outcomes[seq - first]
                    left = tuple(no for no in old.receivers if no != device_no)
                    outcomes[seq - first] = Committed(old.status, old.seq, left)

    def _bound(
        self, connection: Connection, envelopes: list[Envelope], inbox: list[tuple[int, int, int]], now_ms: int
    ) -> None:
        """Keeps every inbox within its bound: refuses where a session is there, else the oldest are missed.

        A refusal leaves no trace of the message, neither a repeat in the same group that counts as known, nor an
        older one that it replaced. So it undoes the group, which is done again in parts until it stands alone.
        """
        receivers = {device_no for device_no, _, _ in inbox}
        overfull = bulk.select_in(connection, _OVERFULL + str(self._max_inbox), receivers)
        for device_no, _ in overfull:
            expired = connection.exec_driver_sql(
                "SELECT seq FROM inbox WHERE device_no = ? AND expires_at_ms <= ?", (device_no, now_ms)
            ).fetchall()
            _end(connection, [(device_no, seq) for (seq,) in expired], Outcome.EXPIRED, now_ms)
            count: int = connection.exec_driver_sql(
                "SELECT COUNT(*) FROM inbox WHERE device_no = ?", (device_no,)
            ).scalar_one()
            if count <= self._max_inbox:
                continue
            if any(device_no in envelope.online for envelope in envelopes):
                raise _InboxFull
            self._miss_oldest(connection, device_no, count - self._max_inbox, now_ms)

    def _end_acked(self, connection: Connection, receipts: list[Receipt]) -> list[None]:
        bulk.execute(connection, _DELETE_INBOX, [(r.device_no, r.seq) for r in receipts])
        bulk.execute(
            connection,
            _INSERT_RECEIPTS,
            [(r.seq, r.device_no, int(Outcome.ACKED), r.acked_at_ms, r.node_id) for r in receipts],
        )
        self._note(connection, "message.acked", [(r.device_no, r.seq, r.acked_at_ms) for r in receipts])
        return [None] * len(receipts)

    def _miss_oldest(self, connection: Connection, device_no: int, count: int, now_ms: int) -> None:
        oldest = connection.exec_driver_sql(
            "SELECT seq FROM inbox WHERE device_no = ? ORDER BY seq LIMIT ?", (device_no, count)
        ).fetchall()
        _end(connection, [(device_no, seq) for (seq,) in oldest], Outcome.MISSED, now_ms)
        connection.exec_driver_sql(
            "UPDATE devices SET missed = missed + ? WHERE device_no = ?", (len(oldest), device_no)
        )
        self._note(connection, "message.missed", [(device_no, seq, now_ms) for (seq,) in oldest])

    def _note(self, connection: Connection, kind: str, ended: list[tuple[int, int, int]]) -> None:
        """Tells webhooks what became of the application's messages: (device_no, seq, at_ms) of each."""
        if self._events is None or not self._events.wants(kind):
            return
        ids = dict(map(tuple, bulk.select_in(connection, _APPLICATIONS, {seq for _, seq, _ in ended})))
        self._events.note(
            connection,
            [
                Event(kind, at_ms, device_no, b'{"message_id":"%b"}' % prefixed("msg", ids[seq]).encode())
                for device_no, seq, at_ms in ended
                if seq in ids
            ],
        )

    # -- reads ------------------------------------------------------------------------------------------------

    async def waiting(self, queries: Sequence[InboxQuery], now_ms: int) -> list[list[Waiting]]:
        def read(connection: Connection) -> list[list[Waiting]]:
            return [
                [
                    Waiting(*row)
                    for row in connection.exec_driver_sql(
                        _WAITING, (query.device_no, query.after_seq, now_ms, query.limit)
                    )
                ]
                for query in queries
            ]

        ask = await self._hints.ask([query.device_no for query in queries if query.after_seq == 0])
        empty: list[int] = []
        try:
            found = await self._database.read(read)
            empty += [query.device_no for query, messages in zip(queries, found, strict=True) if not messages]
        finally:
            await self._hints.clear(ask, empty)
        return found

    async def who_may_wait(self, device_nos: Sequence[int]) -> set[int]:
        return await self._hints.who_may_wait(device_nos)

    async def waits_in(self, segment: int) -> BitMap:
        """For whom of a segment something may wait, to make its hints of. Raises StoreUnavailable."""
        first = segment << 16
        values = (first, first + 0xFFFF)
        return await self._database.read(
            lambda c: BitMap([no for (no,) in c.exec_driver_sql(_IN_SEGMENT, values).fetchall()])
        )

    async def oldest_waiting(self, device_nos: Sequence[int], now_ms: int) -> dict[int, int]:
        def read(connection: Connection) -> dict[int, int]:
            return dict(map(tuple, bulk.select_in(connection, _OLDEST, device_nos, now_ms)))

        return await self._database.read(read)

    async def acked_by(self, seq: int) -> set[int]:
        return await self._database.read(lambda c: {no for (no,) in c.exec_driver_sql(_ACKED_BY, (seq,)).fetchall()})

    async def still_waiting(self, wanted: Sequence[tuple[int, int]], now_ms: int) -> list[Waiting | None]:
        def read(connection: Connection) -> list[Waiting | None]:
            rows = [connection.exec_driver_sql(_ONE, (device_no, seq, now_ms)).first() for device_no, seq in wanted]
            return [None if row is None else Waiting(*row) for row in rows]

        return await self._database.read(read)

    async def empty_inbox(self, device_no: int) -> int:
        def write(connection: Connection) -> int:
            rows = connection.exec_driver_sql("SELECT seq FROM inbox WHERE device_no = ?", (device_no,)).fetchall()
            _end(connection, [(device_no, seq) for (seq,) in rows], Outcome.WITHDRAWN, self._clock.now_ms())
            return len(rows)

        return await self._database.write(write, Domain.MESSAGES)


def packed(receivers: Sequence[int]) -> bytes:
    """Numbers of devices as ``messages.receivers`` has them."""
    if len(receivers) == 1:
        return receivers[0].to_bytes(8, "little")
    return struct.pack(f"<{len(receivers)}q", *sorted(receivers))


def unpacked(receivers: bytes) -> list[int]:
    """The numbers, rising."""
    return list(struct.unpack(f"<{len(receivers) // 8}q", receivers))


def _nothing(_item: object, _result: object) -> None:
    """Nobody waits for it."""


def _end(connection: Connection, ended: list[tuple[int, int]], outcome: Outcome, now_ms: int) -> None:
    """Takes (device_no, seq) out of the inboxes and keeps what became of them."""
    bulk.execute(connection, _DELETE_INBOX, ended)
    bulk.execute(connection, _INSERT_RECEIPTS, [(seq, device_no, int(outcome), now_ms, "") for device_no, seq in ended])


def _subtract_missed(connection: Connection, told: list[tuple[int, int]]) -> list[None]:
    for count, device_no in told:
        connection.exec_driver_sql(
            "UPDATE devices SET missed = MAX(missed - ?, 0) WHERE device_no = ?", (count, device_no)
        )
    return [None] * len(told)
