"""Routes of nodes that have died are removed: the devices behind them count as offline already, for a node that is
not listed does, but their routes would stay until each of them connected again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ports.registry import Registry
from longwire.ports.routes import RouteTable

log = logging.getLogger(__name__)

EVERY_S = 30.0
DEAD_AFTER_S = 60.0
"""So long a node with routes must not have been listed. One that is swept and lives after all puts its routes back
itself (gateway/reconcile.py)."""


class RouteSweep:
    """One in the cluster sweeps at a time: ``leads`` is asked before each look."""

    def __init__(
        self,
        routes: RouteTable,
        registry: Registry,
        leads: Callable[[], bool],
        clock: Clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._routes = routes
        self._registry = registry
        self._leads = leads
        self._clock = clock
        self._sleep = sleep
        self._unlisted_since: dict[str, float] = {}
        """Nodes that have routes and are not listed, and since when that is known, in monotonic seconds."""

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._sleep(EVERY_S)
            try:
                await self.look()
            except StoreUnavailable as error:
                log.warning("routes of dead nodes are not swept now: %s", error)

    async def look(self) -> None:
        """Sweeps the nodes that have been dead for long enough. Raises StoreUnavailable."""
        if not self._leads() or self._registry.stale_since_ms is not None:
            self._unlisted_since.clear()  # what was known then may have changed
            return
        with_routes = await self._routes.nodes()
        now = self._clock.monotonic()
        unlisted = with_routes - {node.node_id for node in self._registry.nodes()}
        self._unlisted_since = {node_id: self._unlisted_since.get(node_id, now) for node_id in unlisted}
        for node_id, since in list(self._unlisted_since.items()):
            if now - since >= DEAD_AFTER_S:
                count = await self._routes.sweep(node_id)
                log.info("%d routes of node %s, which is gone, were removed", count, node_id)
