"""For whom a push may wait, by a bitmap a segment in memory; and what waits, from the rows.

    hint   set when a push is kept; rebuilt a segment at a time from what waits in its open rows
           a segment that was never rebuilt reads as all ones, so that a hint never errs towards no
    rest   who is targeted and in no end state: the one bitmap that a query loads, of open rows alone

So what everybody has acknowledged costs nothing, neither a query nor a byte, and memory is 8 KB a segment, whatever
is live. Every change of a push passes through this process (pushes.py), which tells of it here.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence

from pyroaring import BitMap
from sqlalchemy import Connection

from longwire import bitmaps
from longwire.adapters.sql import bulk
from longwire.adapters.sql.database import SqliteDatabase
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
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


class SqlPushWaiting:
    """ports.push_waiting.PushWaiting on one database, in the process that writes it."""

    def __init__(self, database: SqliteDatabase, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._database = database
        self._clock = clock
        self._sleep = sleep
        self._hints: dict[int, BitMap] = {}
        """By segment; one that is missing reads as all ones."""
        self._stale: set[int] = set()
        """Segments to be rebuilt."""
        self._added: dict[int, BitMap] = {}
        """By segment that is being rebuilt: for whom something was kept meanwhile."""
        self._has_stale = asyncio.Event()
        self._messages = _Messages()

    # -- what the store tells --------------------------------------------------------------------------------

    def added(self, devices: BitMap) -> None:
        """A push for these devices is kept, or goes on."""
        for segment, members in bitmaps.split(devices).items():
            for hints in (self._hints, self._added):
                if segment in hints:
                    hints[segment] |= members

    def changed(self, segments: Iterable[int]) -> None:
        """In these segments pushes wait for fewer devices than before."""
        self._stale.update(segment for segment in segments if segment in self._hints)
        if self._stale:
            self._has_stale.set()

    def ended(self, push_nos: Iterable[int]) -> None:
        """These pushes are not written any more."""
        for push_no in push_nos:
            self._messages.forget(push_no)

    # -- hints -----------------------------------------------------------------------------------------------

    async def who_may_wait(self, device_nos: Sequence[int]) -> set[int]:
        found = set()
        for device_no in device_nos:
            hint = self._hints.get(device_no >> 16)
            if hint is None:
                self._want(device_no >> 16)
            elif device_no not in hint:
                continue
            found.add(device_no)
        return found

    async def online_waiting(self, online: BitMap) -> BitMap:
        found = BitMap()
        for segment, members in bitmaps.split(online).items():
            hint = self._hints.get(segment)
            if hint is None:
                self._want(segment)
            found |= members if hint is None else members & hint
        return found

    def _want(self, segment: int) -> None:
        self._stale.add(segment)
        self._has_stale.set()

    async def run(self) -> None:
        """Rebuilds what is stale, each segment at most every REBUILD_EVERY_S, until it is cancelled."""
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
        self._added[segment] = BitMap()
        now_ms = self._clock.now_ms()
        try:
            rest = await self._database.read(lambda connection: _rest_of(connection, segment, now_ms))
            self._hints[segment] = rest | self._added[segment]
        except BaseException:
            self._stale.add(segment)
            raise
        finally:
            del self._added[segment]

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


def _read_messages(connection: Connection, push_nos: Sequence[int]) -> list[LivePush]:
    return [
        LivePush(push_no, PushMessage(message_id, kind, payload, sent_at_ms, sender, to, key, trace), expires_at_ms)
        for push_no, expires_at_ms, message_id, kind, payload, sent_at_ms, sender, to, key, trace in bulk.select_in(
            connection, _MESSAGES, push_nos
        )
    ]
