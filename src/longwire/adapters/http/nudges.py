"""Devices whose node is to read their inboxes: looked up, and nudged until their node has heard it.

add ─► next ─► looked up ─► a nudge a node at a time ─► read ─► done
                   └─ no route: done; its next session is told that something waits
a nudge failed, no look-up ─► later, after 0.25 s … 5 s ─► next
"""

import logging
import random
from collections.abc import Awaitable, Callable, Coroutine

from pyroaring import BitMap

from longwire.adapters.http import wire
from longwire.adapters.http.client import LinkClient, LinkFailed
from longwire.adapters.http.route_cache import RouteCache
from longwire.errors import StoreUnavailable
from longwire.ports.link import LinkedNode
from longwire.ports.routes import Route, RouteTable

log = logging.getLogger(__name__)

_WITHIN_S = 5.0
_AGAIN_AFTER_S = 0.25
_AT_LEAST_EVERY_S = 5.0
_DEVICES_A_LOOKUP = 10_000

_devices = wire.decoder(BitMap)


class Nudges:
    """For the loop that it was made on; ``start`` owns its tasks."""

    local: LinkedNode | None = None
    is_stopped = False
    """Nothing is nudged any more."""

    def __init__(
        self,
        node_id: str,
        client: LinkClient,
        routes: RouteTable,
        cache: RouteCache,
        start: Callable[[Coroutine[None, None, None]], None],
        sleep: Callable[[float], Awaitable[None]],
        reached: Callable[[str, BitMap], None],
    ) -> None:
        """``reached``: told which devices a node has been nudged for."""
        self.behind = BitMap()
        """Who is to be nudged: those of next, nudging and later; not to be changed."""
        self.nudged = 0
        self.failed = 0
        """Calls that failed."""
        self._node_id = node_id
        self._client = client
        self._routes = routes
        self._cache = cache
        self._start = start
        self._sleep = sleep
        self._reached = reached
        self._next = BitMap()
        self._nudging = BitMap()
        """A nudge is on its way, and what it makes a node read may be older than what comes from here on."""
        self._later = BitMap()
        """A nudge failed."""
        self._not_there = BitMap()
        """Those whom a nudge did not find where they were looked for."""
        self._nudged_nodes: dict[str, BitMap] = {}
        """Nodes that a nudge is on its way to, each with whom the next one is for."""
        self._is_looking = False
        self._is_waiting = False
        self._pause_s = 0.0

    def covers(self, device_no: int) -> bool:
        """Whether a message that is committed by now is read by a nudge; makes sure of it where one is to come."""
        if device_no not in self.behind:
            return False
        if device_no in self._nudging:
            self.add(BitMap([device_no]))
        return True

    def add(self, devices: BitMap) -> None:
        """Has these nudged; those whose nudge is under way, once more."""
        self.behind |= devices
        self._next |= devices
        self._look_soon()

    def _look_soon(self) -> None:
        if not (self._is_looking or self.is_stopped) and self._next - self._nudging:
            self._is_looking = True
            self._start(self._look())

    async def _look(self) -> None:
        """Looks up who is to be nudged, and starts a nudge of each node."""
        while ready := self._next - self._nudging:
            self._next -= ready
            self._nudging |= ready
            try:
                routes = await self._find_all(list(ready))
            except StoreUnavailable:
                self._nudge_ended(ready, ready)
                continue
            except Exception:
                log.exception("looking up whose inboxes are to be read failed")
                self._nudge_ended(ready, ready)
                continue
            by_node: dict[str, BitMap] = {}
            for device_no, route in routes.items():
                by_node.setdefault(route.node_id, BitMap()).add(device_no)
            # Nowhere: the next session is told that something waits.
            self._nudge_ended(ready - BitMap(routes), BitMap())
            for node_id, devices in by_node.items():
                if node_id in self._nudged_nodes:
                    self._nudged_nodes[node_id] |= devices
                else:
                    self._nudged_nodes[node_id] = devices
                    self._start(self._nudge_node(node_id))
        self._is_looking = False

    async def _nudge_node(self, node_id: str) -> None:
        """One nudge after another, while there is anybody to nudge there."""
        while devices := self._nudged_nodes[node_id]:
            self._nudged_nodes[node_id] = BitMap()
            failed = devices
            try:
                missing = await self._nudge_at(node_id, devices)
                self._reached(node_id, devices - missing)
                for device_no in missing:
                    self._cache.forget(device_no)
                self.nudged += len(devices) - len(missing)
                # Not there twice: it has gone since, and was told that something waits.
                failed = missing - self._not_there
                self._not_there = (self._not_there - devices) | failed
            except LinkFailed as error:
                self.failed += 1
                log.info("%d devices are to be nudged later: %s", len(devices), error)
            except Exception:
                log.exception("nudging node %s failed", node_id)
            self._nudge_ended(devices, failed)
        del self._nudged_nodes[node_id]

    async def _nudge_at(self, node_id: str, devices: BitMap) -> BitMap:
        """Who of them is not there. Raises LinkFailed."""
        if node_id == self._node_id and self.local is not None:
            return self.local.nudge(devices)
        node = self._cache.nodes.get(node_id)
        if node is None:
            # It has died, and who was there comes elsewhere; or it has come, and is not on our list yet.
            raise LinkFailed(f"node {node_id} is not listed", was_sent=False)
        answer = await self._client.post(node, "nudge", wire.encode(wire.Devices(devices)), _WITHIN_S)
        try:
            missing: BitMap = _devices.decode(answer)
        except ValueError as error:
            raise LinkFailed(f"node {node_id}'s answer to nudge: {error}", was_sent=True) from error
        return missing & devices

    def _nudge_ended(self, devices: BitMap, failed: BitMap) -> None:
        """``failed``: those of the devices that are to be nudged again, after a while."""
        self._nudging -= devices
        self._next -= failed
        self._later = (self._later - devices) | failed
        self.behind -= devices - failed - self._next
        if failed and not (self._is_waiting or self.is_stopped):
            self._is_waiting = True
            self._start(self._nudge_later())
        elif not self._later:
            self._pause_s = 0.0
        self._look_soon()

    async def _nudge_later(self) -> None:
        self._pause_s = min(max(2 * self._pause_s, _AGAIN_AFTER_S), _AT_LEAST_EVERY_S)
        await self._sleep(self._pause_s * random.uniform(0.75, 1.25))  # noqa: S311  only spreads load
        self._is_waiting = False
        self.add(self._later)

    async def _find_all(self, device_nos: list[int]) -> dict[int, Route]:
        """The routes of those that have one. Raises StoreUnavailable."""
        found: dict[int, Route] = {}
        for at in range(0, len(device_nos), _DEVICES_A_LOOKUP):
            part = device_nos[at : at + _DEVICES_A_LOOKUP]
            for device_no, route in zip(part, await self._routes.find(part), strict=True):
                if route is not None:
                    found[device_no] = route
        return found
