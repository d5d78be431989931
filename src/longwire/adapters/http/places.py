"""Which nodes have sessions of a set of devices, for messages to many."""

import asyncio

from pyroaring import BitMap

from longwire import bitmaps
from longwire.adapters.http.route_cache import RouteCache
from longwire.clock import Clock
from longwire.ports.routes import RouteTable

_LAST_S = 1.0
_MAX_SEGMENTS = 1_000


class Places:
    """Whereabouts by segment, kept for a second."""

    def __init__(self, node_id: str, routes: RouteTable, cache: RouteCache, clock: Clock) -> None:
        self._node_id = node_id
        self._routes = routes
        self._cache = cache
        self._clock = clock
        self._whereabouts: dict[int, tuple[float, dict[str, BitMap]]] = {}

    async def shares(self, receivers: BitMap) -> dict[str, BitMap]:
        """By node, who of them is there, less this node. Raises StoreUnavailable."""
        shares: dict[str, BitMap] = {}
        parts = bitmaps.split(receivers)
        places = await asyncio.gather(*(self._places(segment) for segment in parts))
        for part, by_node in zip(parts.values(), places, strict=True):
            for node_id, there in by_node.items():
                share = part & there
                if share and node_id != self._node_id and node_id in self._cache.nodes:
                    shares[node_id] = shares[node_id] | share if node_id in shares else share
        return shares

    async def _places(self, segment: int) -> dict[str, BitMap]:
        now = self._clock.monotonic()
        kept = self._whereabouts.get(segment)
        if kept is None or now - kept[0] > _LAST_S:
            kept = self._whereabouts[segment] = (now, await self._routes.whereabouts(segment))
            if len(self._whereabouts) > _MAX_SEGMENTS:
                del self._whereabouts[next(iter(self._whereabouts))]
        return kept[1]
