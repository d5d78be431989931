"""Nodes of one cluster in the test's own process: real HTTP between them, one store, one route table, time by hand."""

import asyncio
from dataclasses import replace
from pathlib import Path

from house import House
from raw_peer import NATIVE, Peer

from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.adapters.http import Courier, LinkClient, LinkFailed, LinkServer
from longwire.app.http_server import HttpServer
from longwire.app.services import HandlerServices
from longwire.application import Longwire
from longwire.errors import StoreUnavailable
from longwire.gateway.node import Node
from longwire.limits import Limits
from longwire.push.messages import Messages
from longwire.testing import ManualClock
from longwire.traces import NO_TRACES, Traces

SECRET = "s" * 32


class GatedClient(LinkClient):
    """Calls of some names wait at a gate, or fail; the rest pass."""

    def __init__(self) -> None:
        super().__init__(SECRET)
        self.gates: dict[str, asyncio.Event] = {}
        self.failing: set[str] = set()
        self.lost: set[str] = set()
        """Calls that are carried out and whose answers are lost."""
        self.sent: list[str] = []

    def gate(self, name: str) -> asyncio.Event:
        self.gates[name] = asyncio.Event()
        return self.gates[name]

    async def post(self, node, name, body, within_s):
        self.sent.append(name)
        if name in self.failing:
            raise LinkFailed("away", was_sent=False)
        if name in self.gates:
            await self.gates[name].wait()
        answer = await super().post(node, name, body, within_s)
        if name in self.lost:
            raise LinkFailed("no answer", was_sent=True)
        return answer


class GatedRoutes(EmbeddedRoutes):
    """Attaches of a node may be held between what they did and their answer; the table may be away or forget."""

    def __init__(self, clock, waits) -> None:
        super().__init__(clock, waits)
        self.gates: dict[str, asyncio.Event] = {}
        self.is_away = False

    def _check(self) -> None:
        if self.is_away:
            raise StoreUnavailable("away")

    async def attach(self, node_id, device_nos):
        self._check()
        attached = await super().attach(node_id, device_nos)
        if node_id in self.gates:
            await self.gates[node_id].wait()
        return attached

    async def detach(self, node_id, sessions):
        self._check()
        await super().detach(node_id, sessions)

    async def repair(self, node_id, segment, sessions):
        self._check()
        return await super().repair(node_id, segment, sessions)

    async def find(self, device_nos):
        self._check()
        await asyncio.sleep(0)
        return await super().find(device_nos)

    async def routed_to(self, node_id, segment):
        self._check()
        return await super().routed_to(node_id, segment)

    def forget_all(self) -> None:
        self._nodes.clear()
        self._there.clear()


async def _soon(seconds: float) -> None:
    """The courier's pauses, a tenth as long."""
    await asyncio.sleep(seconds / 10)


class Room:
    """A node with its way to the others and its internal port."""

    def __init__(self, node: Node, courier: Courier, client: GatedClient, traces: Traces = NO_TRACES) -> None:
        self.node, self.courier, self.client = node, courier, client
        courier.local = node
        self.links = LinkServer(node, SECRET, traces)
        self.http = HttpServer(self.links, "127.0.0.1", 0)

    async def start(self) -> None:
        await self.node.listen()
        await self.http.start()
        await self.node.register(f"http://127.0.0.1:{self.http.port}")

    async def stop(self) -> None:
        await self.node.stop()
        await self.links.stop()
        await self.courier.stop()
        await self.client.stop()
        await self.http.stop()


class Nodes(House):
    """Several nodes; ``node`` is the first of them."""

    def __init__(
        self, folder: Path, limits: Limits, app: Longwire, clock: ManualClock | None = None, size: int = 2
    ) -> None:
        super().__init__(folder, limits, app, clock)
        self.size = size
        self.rooms: list[Room] = []
        self.traces_of: dict[int, Traces] = {}
        """Set before the start: of the nodes, counted from 1."""
        self.routes = GatedRoutes(self.clock, self._waits)
        self.with_engines(routes=self.routes)

    def _waits(self, device_no: int) -> bool:
        return self.messages._hints.may_one_wait(device_no) or self.waiting._hints.may_one_wait(device_no)

    async def start(self) -> "Nodes":
        await self.database.start()
        await self.messages.start()
        await self.uplink.start()
        await self.online_hints()
        for at in range(1, self.size + 1):
            settings = replace(self.settings, node_id=f"n{at}~0001")
            client = GatedClient()
            traces = self.traces_of.get(at, NO_TRACES)
            courier = Courier(
                settings.node_id, client, self.routes, self.registry, self.clock, sleep=_soon, traces=traces
            )
            engines = replace(self.engines, across=courier)
            node = Node(settings, engines, self.tokens, self.app, self.clock, self.limits, traces)
            self.rooms.append(Room(node, courier, client, traces))
        self.node = self.rooms[0].node
        self.app.bind(
            HandlerServices(
                self.accounts, Messages(self.accounts, self.sets, self.pushes, self.node, self.clock, self.limits)
            )
        )
        for room in self.rooms:
            await room.start()
        return self

    async def stop(self) -> None:
        self.routes.gates.clear()
        for peer in self.peers:
            peer.close()
        for room in self.rooms:
            for gate in room.client.gates.values():
                gate.set()
        for room in self.rooms:
            await room.stop()
        self.app.unbind()
        await self.database.stop()
        for peer in self.peers:
            peer.writer.transport.abort()

    def turn_wheel(self) -> None:
        for room in self.rooms:
            timer = room.node._timer
            assert timer is not None
            timer.cancel()
            room.node._tick()

    async def at(self, at: int, device_id: str, flavour: str = NATIVE, **more: object) -> Peer:
        """A registered device with a session on the node of that number, counted from 0."""
        if device_id not in self.devices:
            await self.register(device_id)
        peer = await self.peer_at(at, flavour)
        await peer.connect(device_id, **more)
        return peer

    async def peer_at(self, at: int, flavour: str = NATIVE) -> Peer:
        peer = await Peer.open(self.rooms[at].node.port_number, flavour)
        self.peers.append(peer)
        return peer

    async def settled(self) -> None:
        """Everything is committed, told, carried and read, as far as no gate holds it."""
        async with asyncio.timeout(20):
            quiet = 0
            while quiet < 3:
                await self.database.write(lambda _connection: None)
                await self.database.read(lambda _connection: None)
                busy = any(
                    room.node._delivery._is_reading or room.node._tasks._running or not room.courier.is_idle
                    for room in self.rooms
                )
                quiet = 0 if busy else quiet + 1
                await asyncio.sleep(0.002)
