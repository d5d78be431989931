"""The outbox of events: written in the transaction of what they tell of, read by webhooks that each have a cursor.

    receipts, merges ── note ──► events ──► read ──► webhooks/delivery.py ──► flush
    presence ── append ──┘

An event that no webhook takes is never written.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection

from longwire.adapters.sql import bulk
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.domains import Domain, take
from longwire.operations_model import Event, Webhook
from longwire.ports.events import EVENT_KINDS, consumer_of

_INSERT = "INSERT INTO events (event_no, webhook_no, kind, at_ms, device_no, body) VALUES {rows}"
_DEVICE_IDS = "SELECT device_no, device_id FROM devices WHERE device_no IN ({rows})"
_ENDS = "SELECT (SELECT MIN(event_no) FROM events WHERE event_no > ?), (SELECT MAX(event_no) FROM events)"
_WANTED = "event_no > ? AND event_no <= ? AND (webhook_no = ? OR webhook_no = 0 AND kind IN ({kinds}))"
_READ = (
    f"SELECT kind, at_ms, device_no, body, event_no, webhook_no FROM events WHERE {_WANTED} ORDER BY event_no LIMIT ?"
)
_COUNT = f"SELECT COUNT(*) FROM (SELECT 1 FROM events WHERE {_WANTED} LIMIT ?) AS found"
_CURSOR = "SELECT cursor FROM webhooks WHERE webhook_no = ?"
_SKIP = "UPDATE webhooks SET cursor = MAX(cursor, ?) WHERE webhook_no = ?"
_TAKEN = (
    "UPDATE webhooks SET cursor = MAX(cursor, ?), last_success_ms = ?, failing_since_ms = NULL WHERE webhook_no = ?"
)
_UPLINK_WAITING = (
    'SELECT COUNT(*) FROM (SELECT 1 FROM uplink WHERE "offset" > (SELECT "offset" FROM uplink_cursors'
    " WHERE consumer = ?) LIMIT ?) AS found"
)
_SPAN = 20_000
"""Events looked at in one read, wanted or not."""
_COUNT_TO = 10_000
_LOOK_EVERY_S = 1.0
"""In a shared database, where other processes write events too."""
_SKIP_EVERY = 1_000
_NEWEST = 1 << 62
_ROW_BYTES = 100
_SAMPLE = 100


class SqlEvents:
    """ports.events.EventLog on one database; ``note`` is for the other adapters of the same database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._appends = database.stage(self._append, self._written, self._lost, Domain.EVENTS)
        self._marks = database.stage(_no_statement, self._written, self._lost)
        self._webhooks: dict[int, Webhook] = {}
        self._wanted: frozenset[str] = frozenset()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._grown = asyncio.Event()

    def serve(self, webhooks: Iterable[Webhook]) -> None:
        """On the loop: these are the webhooks from now on; at start, and after every change of them, as often as
        somebody looks."""
        self._loop = asyncio.get_running_loop()
        kinds = {webhook.webhook_no: webhook.kinds for webhook in self._webhooks.values()}
        self._webhooks = {webhook.webhook_no: webhook for webhook in webhooks}
        self._wanted = frozenset(kind for kind in EVENT_KINDS if any(w.takes(kind) for w in self._webhooks.values()))
        if kinds != {webhook.webhook_no: webhook.kinds for webhook in self._webhooks.values()}:
            self.grow()

    def grow(self) -> None:
        """On the loop: readers look again."""
        self._grown.set()
        self._grown = asyncio.Event()

    # -- writes -----------------------------------------------------------------------------------------------

    def wants(self, kind: str) -> bool:
        return kind in self._wanted

    def append(self, event: Event) -> None:
        if event.kind in self._wanted:
            self._appends.add(event)

    def note(self, connection: Connection, events: Sequence[Event]) -> None:
        """On the writer's thread: puts events into the transaction that is open, those that a webhook wants.

        The device's id is added to the body here: it may be deleted before the event is told.
        """
        wanted = [event for event in events if event.kind in self._wanted]
        if not wanted:
            return
        self._insert(connection, wanted)
        if self._database.is_shared:
            return  # whoever reads looks often enough; most likely it is another process
        assert self._loop is not None
        # What this transaction wrote can be read once it is committed: that is before a later group is.
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody reads any more
            self._loop.call_soon_threadsafe(self._marks.add, None)

    def _append(self, connection: Connection, events: list[Event]) -> list[None]:
        self._insert(connection, events)
        return [None] * len(events)

    @staticmethod
    def _insert(connection: Connection, events: Sequence[Event]) -> None:
        numbers = {event.device_no for event in events if event.device_no}
        ids: dict[int, str] = dict(map(tuple, bulk.select_in(connection, _DEVICE_IDS, numbers)))
        rows = [
            (
                event_no,
                event.webhook_no,
                event.kind,
                event.at_ms,
                event.device_no,
                _with_device(event.body, ids.get(event.device_no)),
            )
            for event_no, event in zip(take(connection, Domain.EVENTS, len(events)), events, strict=True)
        ]
        bulk.execute(connection, _INSERT, rows)

    def _written(self, _item: object, _result: None) -> None:
        self.grow()

    def _lost(self, _item: object, _error: Exception) -> None:
        """Presence that the store did not take is not told to webhooks; the store logs why."""

    # -- reads ------------------------------------------------------------------------------------------------

    async def read(self, webhook_no: int, after_no: int, limit: int) -> Sequence[Event]:
        skipped = after_no
        while True:
            # Of this reader and of no other: one that cleared it for all would take the others' wake-up.
            grown = self._grown
            kinds = self._kinds_of(webhook_no)
            values = (webhook_no, kinds, after_no, limit)
            events, reached, is_end = await self._database.read(lambda c, values=values: _read(c, *values))  # type: ignore[misc]
            if events:
                return events
            after_no = reached
            if reached - skipped >= _SKIP_EVERY:
                # Else a webhook that wants little would keep the outbox from being swept.
                await self._skip(webhook_no, reached)
                skipped = reached
            if is_end:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_EVERY_S if self._database.is_shared else None):
                        await grown.wait()

    async def flush(self, webhook_no: int, event_no: int, now_ms: int) -> None:
        values = (event_no, now_ms, webhook_no)
        await self._database.write(lambda c: c.exec_driver_sql(_TAKEN, values).close())

    async def _skip(self, webhook_no: int, event_no: int) -> None:
        await self._database.write(lambda c: c.exec_driver_sql(_SKIP, (event_no, webhook_no)).close())

    async def waiting(self, webhook_no: int) -> int:
        kinds = self._kinds_of(webhook_no)

        def count(connection: Connection) -> int:
            cursor = connection.exec_driver_sql(_CURSOR, (webhook_no,)).scalar() or 0
            wanted = (cursor, _NEWEST, webhook_no, *kinds, _COUNT_TO)
            own: int = connection.exec_driver_sql(_of_kinds(_COUNT, kinds), wanted).scalar_one()
            uplink: int = connection.exec_driver_sql(_UPLINK_WAITING, (consumer_of(webhook_no), _COUNT_TO)).scalar_one()
            return own + uplink

        return await self._database.read(count)

    def _kinds_of(self, webhook_no: int) -> Sequence[str]:
        webhook = self._webhooks.get(webhook_no)
        return [kind for kind in EVENT_KINDS if webhook is not None and webhook.takes(kind)]


def sweep_events(connection: Connection, now_ms: int, max_age_ms: int, max_bytes: int, limit: int) -> int:
    """Deletes at most ``limit`` events that every webhook is past, or too old, or above ``max_bytes``; how many."""
    taken: int = connection.exec_driver_sql("SELECT COALESCE(MIN(cursor), ?) FROM webhooks", (_NEWEST,)).scalar_one()
    is_too_large = _outbox_bytes(connection) > max_bytes
    oldest = connection.exec_driver_sql(
        "SELECT event_no, at_ms FROM events ORDER BY event_no LIMIT ?", (limit,)
    ).fetchall()
    gone = [no for no, at_ms in oldest if is_too_large or no <= taken or at_ms < now_ms - max_age_ms]
    bulk.execute(connection, "DELETE FROM events WHERE (event_no) IN (VALUES {rows})", [(no,) for no in gone])
    return len(gone)


def _outbox_bytes(connection: Connection) -> int:
    """About what the outbox weighs: by the oldest and the newest, for to add it up would read all of it."""
    first, last = connection.exec_driver_sql(
        "SELECT (SELECT MIN(event_no) FROM events), (SELECT MAX(event_no) FROM events)"
    ).one()
    if first is None:
        return 0
    oldest = "SELECT body FROM events ORDER BY event_no LIMIT ?"
    sample = f"SELECT COUNT(*), SUM(LENGTH(body) + {_ROW_BYTES}) FROM ({oldest}) AS sample"
    rows, size = 0, 0
    for order in ("event_no", "event_no DESC"):
        count, weight = connection.exec_driver_sql(
            sample.replace("ORDER BY event_no", f"ORDER BY {order}"), (_SAMPLE,)
        ).one()
        rows, size = rows + count, size + weight
    return int(size / rows * (last + 1 - first))


def _read(
    connection: Connection, webhook_no: int, kinds: Sequence[str], after_no: int, limit: int
) -> tuple[list[Event], int, bool]:
    """The events, how far was looked, and whether that is the end."""
    first, last = connection.exec_driver_sql(_ENDS, (after_no,)).one()
    if first is None:
        return [], after_no, True
    reach = min(first + _SPAN, last)
    values = (after_no, reach, webhook_no, *kinds, limit)
    rows: Any = connection.exec_driver_sql(_of_kinds(_READ, kinds), values).fetchall()
    return [Event(*row) for row in rows], reach, reach == last


def _of_kinds(template: str, kinds: Sequence[str]) -> str:
    return template.format(kinds=",".join("?" * len(kinds)) or "''")


def _with_device(body: bytes, device_id: str | None) -> bytes:
    if device_id is None:
        return body
    rest = body[1:]
    return b'{"device_id":' + msgspec.json.encode(device_id) + (rest if rest == b"}" else b"," + rest)


def _no_statement(_connection: Connection, items: list[None]) -> list[None]:
    return [None] * len(items)
