"""Where devices are now: asked of the nodes, the route table and the store, and not waited for long."""

import asyncio
from collections.abc import Sequence

from msgspec import Struct

from longwire.errors import StoreUnavailable
from longwire.model import Device
from longwire.operations_model import LastSession, SessionView
from longwire.ports.link import Link
from longwire.ports.presence import PresenceStore
from longwire.ports.registry import Registry
from longwire.ports.routes import Route, RouteTable

_WITHIN_S = 0.5


class Live(Struct, frozen=True):
    """How one device is connected. Without a session and ``is_known`` it is offline."""

    device: Device | None
    """None: it has been deleted."""
    session: SessionView | None
    last: LastSession | None
    is_known: bool = True
    """False: its node does not answer."""
    node_id: str = ""
    """Without a session: the node that does not answer, or one that has died with it."""


class Whereabouts:
    """Asks for many devices at once. Raises StoreUnavailable where the store of accounts and presence is away."""

    def __init__(self, presence: PresenceStore, link: Link, routes: RouteTable, registry: Registry) -> None:
        self._presence = presence
        self._link = link
        self._routes = routes
        self._registry = registry

    async def of(self, device_nos: Sequence[int], devices: Sequence[Device | None]) -> list[Live]:
        """Each device's, in their order."""
        if not device_nos:
            return []
        last, (sessions, routes) = await asyncio.gather(
            self._presence.last_sessions(device_nos), self._sessions(device_nos)
        )
        return [
            self._live(device, session, route, ended, routes is not None)
            for device, session, route, ended in zip(
                devices, sessions, routes or [None] * len(device_nos), last, strict=True
            )
        ]

    async def _sessions(self, device_nos: Sequence[int]) -> tuple[list[SessionView | None], list[Route | None] | None]:
        """The sessions, and the routes; without routes where it took too long to ask."""
        try:
            async with asyncio.timeout(_WITHIN_S):
                sessions = await self._link.sessions(device_nos)
                routes: list[Route | None] = [None] * len(device_nos)
                if None in sessions:
                    routes = await self._routes.find(device_nos)
                return sessions, routes
        except (TimeoutError, StoreUnavailable):
            return [None] * len(device_nos), None

    def _live(
        self,
        device: Device | None,
        session: SessionView | None,
        route: Route | None,
        last: LastSession | None,
        is_known: bool,
    ) -> Live:
        if session is not None or not is_known:
            return Live(device, session, last, session is not None or is_known)
        if route is None or (last is not None and last.version >> 1 >= route.epoch):
            return Live(device, None, last)  # without a route, or with one that is about to go
        lives = any(node.node_id == route.node_id for node in self._registry.nodes())
        return Live(device, None, last, is_known=not lives, node_id=route.node_id)
