"""Sessions and routes are to say the same: what the route table lost is put back, what it has too much is taken out.

    hub ─ missing there ─► repair ─► lost to a newer session elsewhere ─► closed as taken over
    route table ─ not here ─► find ─► still led here ─► detach

It goes segment by segment, so that one look costs a bitmap for 65,536 devices, and lets the loop run between.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from pyroaring import BitMap

from longwire import bitmaps
from longwire.clock import Clock
from longwire.gateway.hub import Hub
from longwire.gateway.session import Session
from longwire.ports.routes import RouteTable
from longwire.reasons import CloseCode

log = logging.getLogger(__name__)

_SLICE = 1_000


class Reconcile:
    """Looks at the routes of this node's sessions."""

    def __init__(self, node_id: str, hub: Hub, routes: RouteTable, arriving: Mapping[int, bool], clock: Clock) -> None:
        self._node_id = node_id
        self._hub = hub
        self._routes = routes
        self._arriving = arriving
        self._clock = clock
        self._segments: set[int] | None = None
        """Those of the last look; None before the first, which looks at all."""
        self.drift = 0
        """Sessions and routes that differed at the last look."""
        self.repaired = 0
        """The same since the start."""
        self.at_ms: int | None = None
        """When the last look ended that got through."""

    async def look(self) -> None:
        """Raises StoreUnavailable; what was found until then is repaired."""
        here = set(bitmaps.segments(self._hub.online))
        before = set(await self._routes.segments()) if self._segments is None else self._segments
        drift = 0
        for segment in sorted(here | before):
            drift += await self._look_at(segment)
        self._segments = here
        self.drift = drift
        self.repaired += drift
        self.at_ms = self._clock.now_ms()
        if drift:
            log.info("%d routes of node %s were not as its sessions are, and have been repaired", drift, self._node_id)

    async def _look_at(self, segment: int) -> int:
        """How many routes of the segment were not as they should be."""
        began_ms = self._clock.now_ms()
        arriving = BitMap(self._arriving)
        there = await self._routes.routed_to(self._node_id, segment)
        here = bitmaps.part(self._hub.online, segment)
        stale = there - here - arriving - BitMap(self._arriving)
        missing = list(map(self._hub.find, here - there - arriving))
        # One that came while the table was asked has its route by now.
        sessions = [s for s in missing if s is not None and s.since_ms <= began_ms and not s.connection.is_closing]
        for at in range(0, len(sessions), _SLICE):
            await self._put_back(segment, sessions[at : at + _SLICE])
        return len(sessions) + await self._take_out(segment, stale.to_array())

    async def _put_back(self, segment: int, sessions: Sequence[Session]) -> None:
        wanted = {session.device_no: session for session in sessions}
        lost = await self._routes.repair(self._node_id, segment, [(no, s.epoch) for no, s in wanted.items()])
        for device_no, route in lost:
            session = wanted[device_no]
            if self._hub.find(device_no) is session and route.epoch > session.epoch:
                session.connection.close(CloseCode.TAKEN_OVER)
        await asyncio.sleep(0)

    async def _take_out(self, segment: int, stale: Sequence[int]) -> int:
        count = 0
        for at in range(0, len(stale), _SLICE):
            part = stale[at : at + _SLICE]
            ended: list[tuple[int, int]] = []
            elsewhere: list[tuple[int, int]] = []
            for device_no, route in zip(part, await self._routes.find(part), strict=True):
                if route is None or self._hub.find(device_no) is not None or device_no in self._arriving:
                    continue  # it has gone, or come, meanwhile
                if route.node_id == self._node_id:
                    ended.append((device_no, route.epoch))
                else:
                    # Loses against the route that stands, and clears the bit that said it were here.
                    elsewhere.append((device_no, 0))
            if ended:
                await self._routes.detach(self._node_id, ended)
            if elsewhere:
                await self._routes.repair(self._node_id, segment, elsewhere)
            count += len(ended) + len(elsewhere)
            await asyncio.sleep(0)
        return count
