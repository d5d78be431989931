"""Hints of who has something waiting, in memory: whole once they are rebuilt, gone with the process."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence

from pyroaring import BitMap

from longwire import bitmaps
from longwire.errors import StoreUnavailable
from longwire.ports.waiting import Ask, SegmentQuery

log = logging.getLogger(__name__)

_REBUILD_EVERY_S = 1.0


class EmbeddedWaiting:
    """ports.waiting.WaitingHints for nodes of one process."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._sleep = sleep
        self._hints = BitMap()
        self._whole: set[int] = set()
        """Segments that have been rebuilt; of all others the hints say nothing."""
        self._unsure: set[int] = set()
        """Segments that were asked for and are not whole."""
        self._asked: dict[int, int] = {}
        """The ticket of the last question under way for a device to which nothing was added since."""
        self._tickets = itertools.count(1)
        self._added: dict[int, BitMap] = {}
        """By segment that is being rebuilt: what was added meanwhile."""

    def add(self, device_nos: Sequence[int] | BitMap, done: Callable[[], None]) -> None:
        self._hints.update(device_nos)
        if self._asked:
            for device_no in device_nos:
                self._asked.pop(device_no, None)
        if self._added:
            devices = BitMap(device_nos)
            for segment, added in self._added.items():
                added.update(bitmaps.part(devices, segment))
        done()

    async def who_may_wait(self, device_nos: Sequence[int]) -> set[int]:
        return {no for no in device_nos if no in self._hints or not self._is_whole(no >> 16)}

    async def may_wait(self, devices: BitMap) -> BitMap:
        found = devices & self._hints
        for segment, members in bitmaps.split(devices).items():
            if not self._is_whole(segment):
                found |= members
        return found

    def may_one_wait(self, device_no: int) -> bool:
        """As ``who_may_wait``, for the route table of the process."""
        return device_no in self._hints or not self._is_whole(device_no >> 16)

    async def ask(self, device_nos: Sequence[int]) -> Ask:
        ask = Ask(next(self._tickets), tuple(device_nos))
        self._asked.update(dict.fromkeys(device_nos, ask.ticket))
        return ask

    async def clear(self, ask: Ask, device_nos: Sequence[int]) -> None:
        empty = set(device_nos)
        for device_no in ask.device_nos:
            if self._asked.get(device_no) == ask.ticket:
                del self._asked[device_no]
                if device_no in empty:
                    self._hints.discard(device_no)

    async def rebuild(self, segment: int, query: SegmentQuery) -> bool:
        if segment in self._added:
            return False
        self._added[segment] = BitMap()
        try:
            found = await query(segment)
        finally:
            added = self._added.pop(segment)
        self._hints = (self._hints - bitmaps.part(self._hints, segment)) | found | added
        self._whole.add(segment)
        self._unsure.discard(segment)
        return True

    async def run(self, query: SegmentQuery) -> None:
        while True:
            for segment in sorted(self._unsure):
                try:
                    await self.rebuild(segment, query)
                except StoreUnavailable as error:
                    log.warning("hints of what waits are not rebuilt: %s", error)
                    break
            await self._sleep(_REBUILD_EVERY_S)

    def _is_whole(self, segment: int) -> bool:
        if segment in self._whole:
            return True
        self._unsure.add(segment)
        return False
