"""For whom a push may wait, by a bit a device (ports/waiting.py); and what waits, from the rows.

    hint   set when a push is kept; rebuilt a segment at a time from what waits in its open rows
           a segment that was never rebuilt reads as all ones, so that a hint never errs towards no
    rest   who is targeted and in no end state: the one bitmap that a query loads, of open rows alone

So what everybody has acknowledged costs nothing, neither a query nor a byte, and hints are 8 KB a segment, whatever
is live. A process tells here of every change of a push that it makes (pushes.py).
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence

from pyroaring import BitMap
from sqlalchemy import Connection

from longwire import bitmaps
from longwire.adapters.embedded.waiting import EmbeddedWaiting
from longwire.adapters.sql import bulk
from longwire.adapters.sql.database import Database
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ports.waiting import WaitingHints
from longwire.push_model import LivePush, PushMessage, PushQuery

log = logging.getLogger(__name__)

Sleep = Callable[[float], Awaitable[None]]

REBUILD_EVERY_S = 5.0
"""A segment is rebuilt at most that often, whatever is acknowledged in it."""
MAX_CACHED_BYTES = 16 << 20
_ENTRY_BYTES = 512

# SQLite would choose the primary key and read the rows of every push.
_ROWS = (
    "FROM push_segments s INDEXED BY ix_push_segments_open JOIN pushes p ON p.push_no = s.push_no"
    " WHERE s.segment = ? AND s.is_open = 1 AND p.expires_at_ms > ? AND p.is_paused = 0"
)
_REST = f"SELECT s.rest {_ROWS}"
_WAITING = (
    f"SELECT s.push_no, s.cursor, s.rest, p.rate_per_s IS NOT NULL {_ROWS}"
    " AND s.rest_min <= ? AND s.rest_max >= ? AND s.push_no > ? ORDER BY s.push_no"
)
_MESSAGES = (
    'SELECT push_no, expires_at_ms, message_id, kind, payload, started_at_ms, sender, "to", collapse_key, trace'
    " FROM pushes WHERE push_no IN ({rows}) AND status IN ('sending', 'dispatched')"
)
_LIVE = "SELECT push_no FROM pushes WHERE push_no IN ({rows}) AND status IN ('sending', 'dispatched')"


class SqlPushWaiting:
    """ports.push_waiting.PushWaiting on one database.

    ``hints`` are those of all processes that share it; without them it keeps its own, for one process.
    """

    def __init__(
        self, database: Database, clock: Clock, sleep: Sleep = asyncio.sleep, hints: WaitingHints | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._sleep = sleep
        self._hints: WaitingHints = EmbeddedWaiting(sleep) if hints is None else hints
        self._stale: set[int] = set()
        """Segments to be rebuilt: for those who are hinted at, fewer pushes wait than did."""
        self._has_stale = asyncio.Event()
        self._messages = _Messages()

    # -- what the store tells --------------------------------------------------------------------------------

    def added(self, devices: BitMap, done: Callable[[], None]) -> None:
        """A push for these devices is kept, or goes on; ``done`` runs when the hints say so."""
        if devices:
            self._hints.add(devices, done)
        else:
            done()

    def changed(self, segments: Iterable[int]) -> None:
        """In these segments pushes wait for fewer devices than before."""
        self._stale.update(segments)
        if self._stale:
            self._has_stale.set()

    def ended(self, push_nos: Iterable[int]) -> None:
        """These pushes are not written any more."""
        for push_no in push_nos:
            self._messages.forget(push_no)

    # -- hints -----------------------------------------------------------------------------------------------

    async def who_may_wait(self, device_nos: Sequence[int]) -> set[int]:
        return await self._hints.who_may_wait(device_nos)

    async def online_waiting(self, online: BitMap) -> BitMap:
        return await self._hints.may_wait(online)

    async def waits_in(self, segment: int) -> BitMap:
        """For whom of a segment a push waits, to make its hints of. Raises StoreUnavailable."""
        now_ms = self._clock.now_ms()
        return await self._database.read(lambda connection: _rest_of(connection, segment, now_ms))

    async def run(self) -> None:
        """Rebuilds what is stale, each segment at most every REBUILD_EVERY_S, until it is cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._hints.run(self.waits_in), name="hints that are not whole")
            both.create_task(self._rebuild_stale(), name="stale hints")

    async def _rebuild_stale(self) -> None:
        while True:
            await self._has_stale.wait()
            try:
                await self.rebuild()
            except StoreUnavailable as error:
                log.warning("hints of what waits are not rebuilt: %s", error)
            await self._sleep(REBUILD_EVERY_S)

    async def rebuild(self) -> None:
        """Rebuilds the segments that are stale now. Raises StoreUnavailable; what is left stays stale."""
        for segment in sorted(self._stale):
            await self._rebuild(segment)
        if not self._stale:
            self._has_stale.clear()

    async def _rebuild(self, segment: int) -> None:
        self._stale.discard(segment)
        is_done = False
        try:
            is_done = await self._hints.rebuild(segment, self.waits_in)
        finally:
            if not is_done:
                self._stale.add(segment)

    # -- what waits ------------------------------------------------------------------------------------------

    async def waiting(self, queries: Sequence[PushQuery], now_ms: int) -> list[list[int]]:
        asked: dict[int, list[int]] = {}
        for index, query in enumerate(queries):
            asked.setdefault(query.device_no >> 16, []).append(index)

        def read(connection: Connection) -> list[list[int]]:
            found: list[list[int]] = [[] for _ in queries]
            for segment, indexes in asked.items():
                _find_waiting(connection, segment, [(queries[index], found[index]) for index in indexes], now_ms)
            return found

        return await self._database.read(read)

    async def messages(self, push_nos: Sequence[int], now_ms: int) -> list[LivePush | None]:
        if self._database.is_shared:
            # Another process may have ended them: what is kept here saves their payloads, not the question.
            for push_no in await self._database.read(lambda connection: _ended(connection, push_nos)):
                self._messages.forget(push_no)
        found = {push_no: self._messages.find(push_no) for push_no in push_nos}
        missing = [push_no for push_no, live in found.items() if live is None]
        if missing:
            ends = self._messages.ends
            for read in await self._database.read(lambda connection: _read_messages(connection, missing)):
                found[read.push_no] = read
                # What ended while it was read might be among them.
                if ends == self._messages.ends:
                    self._messages.keep(read)
        return [_unless_over(found[push_no], now_ms) for push_no in push_nos]


class _Messages:
    """Pushes read lately, the oldest forgotten first; only live ones."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, LivePush] = OrderedDict()
        self._bytes = 0
        self.ends = 0
        """Rises with every push that ends."""

    def find(self, push_no: int) -> LivePush | None:
        live = self._kept.get(push_no)
        if live is not None:
            self._kept.move_to_end(push_no)
        return live

    def keep(self, live: LivePush) -> None:
        self._drop(live.push_no)
        self._kept[live.push_no] = live
        self._bytes += _bytes_of(live)
        while self._bytes > MAX_CACHED_BYTES:
            self._drop(next(iter(self._kept)))

    def forget(self, push_no: int) -> None:
        self.ends += 1
        self._drop(push_no)

    def _drop(self, push_no: int) -> None:
        live = self._kept.pop(push_no, None)
        if live is not None:
            self._bytes -= _bytes_of(live)


def _unless_over(live: LivePush | None, now_ms: int) -> LivePush | None:
    return live if live is not None and live.expires_at_ms > now_ms else None


def _bytes_of(live: LivePush) -> int:
    return len(live.message.payload) + _ENTRY_BYTES


def _rest_of(connection: Connection, segment: int, now_ms: int) -> BitMap:
    rest = BitMap()
    for (blob,) in connection.exec_driver_sql(_REST, (segment, now_ms)):
        rest |= bitmaps.load(blob)
    return rest


def _find_waiting(
    connection: Connection, segment: int, asked: Sequence[tuple[PushQuery, list[int]]], now_ms: int
) -> None:
    """Fills each query's list; all of one segment."""
    hungry = [(query, found) for query, found in asked if query.limit > 0]
    numbers = [query.device_no for query, _ in hungry]
    if not hungry:
        return
    after = min(query.after_push_no for query, _ in hungry)
    rows = connection.exec_driver_sql(_WAITING, (segment, now_ms, max(numbers), min(numbers), after))
    for push_no, cursor, blob, is_paced in rows:
        rest = bitmaps.load(blob)
        for query, found in hungry:
            is_its_turn = not is_paced or query.device_no <= cursor
            if is_its_turn and push_no > query.after_push_no and query.device_no in rest:
                found.append(push_no)
        hungry = [(query, found) for query, found in hungry if len(found) < query.limit]
        if not hungry:
            break
    rows.close()


def _ended(connection: Connection, push_nos: Sequence[int]) -> set[int]:
    return set(push_nos).difference(no for (no,) in bulk.select_in(connection, _LIVE, push_nos))


def _read_messages(connection: Connection, push_nos: Sequence[int]) -> list[LivePush]:
    return [
        LivePush(push_no, PushMessage(message_id, kind, payload, sent_at_ms, sender, to, key, trace), expires_at_ms)
        for push_no, expires_at_ms, message_id, kind, payload, sent_at_ms, sender, to, key, trace in bulk.select_in(
            connection, _MESSAGES, push_nos
        )
    ]
