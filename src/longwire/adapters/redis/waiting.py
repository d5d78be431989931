"""Hints of who has something waiting, in Redis, under the hash tag of their segment:

    lw:{12}:w     65,536 bits, see bits.py            lw:{12}:wr    ticket of the rebuilding under way
    lw:{12}:wv    there where the bits are whole      lw:{12}:wa    bits added since that began
                                                      lw:{12}:wc    hash: device → ticket of the question under way

``w`` is the kind: inboxes; pushes are ``p``. Whatever empties Redis takes the mark ``wv`` with the bits, and the
tickets, so that nothing which began before ends in a statement about what came after.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence

from pyroaring import BitMap

from longwire import bitmaps
from longwire.adapters.redis import bits
from longwire.adapters.redis.server import Call, RedisServer, Script
from longwire.errors import StoreUnavailable
from longwire.ports.waiting import Ask, SegmentQuery

log = logging.getLogger(__name__)

_ADD = Script("hint_add")
_ADD_MANY = Script("hint_add_many")
_READ = Script("hint_read")
_READ_ALL = Script("hint_read_all")
_ASK = Script("hint_ask")
_CLEAR = Script("hint_clear")
_BEGIN = Script("hint_begin")
_FINISH = Script("hint_finish")

_MANY = 500
"""From so many devices of a segment on, its bits go whole: 8 KB, and no step a device."""
_TICKET_HOLDS_S = 60
_REBUILT_WITHIN_S = 30
_LOOK_EVERY_S = 1.0

Sleep = Callable[[float], Awaitable[None]]
Done = Callable[[], None]


class RedisWaiting:
    """ports.waiting.WaitingHints in Redis."""

    def __init__(self, server: RedisServer, kind: str, prefix: str = "lw", sleep: Sleep = asyncio.sleep) -> None:
        self._server = server
        self._kind = kind
        self._prefix = prefix
        self._sleep = sleep
        self._queue: list[tuple[Sequence[int] | BitMap, Done]] = []
        self._task: asyncio.Task[None] | None = None
        self._unsaid = BitMap()
        """What Redis did not take."""
        self._unsure: set[int] = set()
        """Segments that were asked for and are not whole."""

    async def aclose(self) -> None:
        """Waits for what is being added, at most as long as a call may take."""
        if self._task is not None:
            await self._task

    # -- adding --------------------------------------------------------------------------------------------------

    def add(self, device_nos: Sequence[int] | BitMap, done: Done) -> None:
        self._queue.append((device_nos, done))
        if self._task is None:
            self._task = asyncio.create_task(self._add_queued(), name="adding hints")

    async def _add_queued(self) -> None:
        try:
            while self._queue:
                queue, self._queue = self._queue, []
                devices = BitMap()
                for device_nos, _ in queue:
                    devices.update(device_nos)
                try:
                    await self._say(devices)
                finally:
                    for _, done in queue:
                        _tell(done)
        finally:
            self._task = None

    async def _say(self, devices: BitMap) -> None:
        """Adds them, and keeps those that Redis does not take."""
        parts = list(bitmaps.split(devices).items())
        self._unsaid |= devices  # a call that is cancelled says nothing of what became of it
        results = await self._server.try_run([self._add_call(segment, members) for segment, members in parts])
        for (_, members), result in zip(parts, results, strict=True):
            if not isinstance(result, StoreUnavailable):
                self._unsaid -= members

    def _add_call(self, segment: int, members: BitMap) -> Call:
        if len(members) >= _MANY:
            return self._call(_ADD_MANY, segment, bits.dump(members, segment))
        return self._call(_ADD, segment, *_lows(members))

    # -- reading -------------------------------------------------------------------------------------------------

    async def who_may_wait(self, device_nos: Sequence[int]) -> set[int]:
        asked: dict[int, list[int]] = {}
        for device_no in device_nos:
            asked.setdefault(device_no >> 16, []).append(device_no)
        parts = [
            (segment, members[at : at + _MANY])
            for segment, members in asked.items()
            for at in range(0, len(members), _MANY)
        ]
        results = await self._server.run([self._call(_READ, segment, *_lows(members)) for segment, members in parts])
        found: set[int] = set()
        for (segment, members), (is_whole, *waits) in zip(parts, results, strict=True):
            self._note(segment, is_whole == 1)
            found.update(no for no, may in zip(members, waits, strict=True) if may or not is_whole)
        return found.union(self._unsaid.intersection(BitMap(device_nos))) if self._unsaid else found

    async def may_wait(self, devices: BitMap) -> BitMap:
        parts = list(bitmaps.split(devices).items())
        results = await self._server.run([self._call(_READ_ALL, segment) for segment, _ in parts])
        found = BitMap()
        for (segment, members), (is_whole, kept) in zip(parts, results, strict=True):
            self._note(segment, is_whole == 1)
            found |= members & bits.load(kept, segment) if is_whole else members
        return found | devices & self._unsaid

    def _note(self, segment: int, is_whole: bool) -> None:
        if is_whole:
            self._unsure.discard(segment)
        else:
            self._unsure.add(segment)

    # -- clearing ------------------------------------------------------------------------------------------------

    async def ask(self, device_nos: Sequence[int]) -> Ask:
        ask = Ask(secrets.randbits(62), tuple(device_nos))
        await self._server.try_run(
            [
                self._call(_ASK, segment, ask.ticket, _TICKET_HOLDS_S, *_lows(members))
                for segment, members in bitmaps.split(BitMap(device_nos)).items()
            ]
        )
        return ask

    async def clear(self, ask: Ask, device_nos: Sequence[int]) -> None:
        empty = BitMap(device_nos)
        calls = []
        for segment, members in bitmaps.split(BitMap(ask.device_nos)).items():
            gone = members & empty
            lows = [*_lows(gone), *_lows(members - gone)]
            calls.append(self._call(_CLEAR, segment, ask.ticket, len(gone), *lows))
        await self._server.try_run(calls)

    # -- rebuilding ----------------------------------------------------------------------------------------------

    async def rebuild(self, segment: int, query: SegmentQuery) -> bool:
        ticket = secrets.randbits(62)
        (is_begun,) = await self._server.run([self._call(_BEGIN, segment, ticket, _REBUILT_WITHIN_S)])
        if not is_begun:
            return False
        kept = b""  # gives up
        try:
            found = await query(segment)
            kept = bits.dump(found | self._unsaid, segment)
        finally:
            results = await self._server.try_run([self._call(_FINISH, segment, ticket, kept)])
        (is_done,) = results
        if isinstance(is_done, StoreUnavailable):
            raise is_done
        is_whole = bool(is_done)
        self._note(segment, is_whole)
        return is_whole

    async def run(self, query: SegmentQuery) -> None:
        while True:
            with contextlib.suppress(StoreUnavailable):  # Redis is away, as everybody says who needs it more
                await self._look(query)
            await self._sleep(_LOOK_EVERY_S)

    async def _look(self, query: SegmentQuery) -> None:
        if self._unsaid:
            self.add(self._unsaid.copy(), _nothing)
        for segment in sorted(self._unsure):
            if await self.rebuild(segment, query):
                log.info("hints %r of segment %d are whole again", self._kind, segment)
            else:
                self._unsure.discard(segment)  # another is at it; whoever asks next says whether it was done

    def _call(self, script: Script, segment: int, *arguments: str | bytes | int) -> Call:
        return Call(script, [f"{self._prefix}:{{{segment}}}"], [self._kind, *arguments])


def _lows(device_nos: Iterable[int]) -> list[int]:
    return [device_no & 0xFFFF for device_no in device_nos]


def _nothing() -> None:
    """Nobody waits for it."""


def _tell(done: Done) -> None:
    try:
        done()
    except Exception:
        log.exception("what waited for a hint failed")
