"""Two nodes behind real sockets, devices that go from one to the other, and 20,000 messages under way meanwhile."""

import asyncio
import contextlib
import random

from couriers import SECRET, info, message
from test_courier_machine import Device, ModelNode, Session

from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.adapters.http import Courier, LinkClient, LinkServer
from longwire.app.http_server import HttpServer
from longwire.clock import SystemClock

_MESSAGES = 20_000
_DEVICES = 40


class Moving:
    """Devices on two nodes; a takeover is an attach, a session that stands, and an old one that hears of it later."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.registry = EmbeddedRegistry()
        self.devices = {no: Device() for no in range(1, _DEVICES + 1)}
        self.routes = EmbeddedRoutes(self.clock, waits=lambda no: bool(self.devices[no].inbox))
        self.nodes = {node_id: ModelNode(node_id) for node_id in ("a", "b")}
        self.couriers: dict[str, Courier] = {}
        self.random = random.Random(7)

    async def attach(self, no: int, node_id: str) -> None:
        [attached] = await self.routes.attach(node_id, (no,))
        node, device = self.nodes[node_id], self.devices[no]
        session = node.arriving[no] = Session(device, attached.epoch, attached.waits)
        device.session = None
        await asyncio.sleep(self.random.random() * 0.01)
        del node.arriving[no]
        node.standing[no] = device.session = session
        courier = self.couriers[node_id]
        courier.came(no)
        if session.owes_read or courier.is_under_way(no):
            session.read()

    async def move(self, no: int) -> None:
        old, new = ("a", "b") if no in self.nodes["a"].standing else ("b", "a")
        await self.attach(no, new)
        await asyncio.sleep(self.random.random() * 0.02)
        self.end(no, old)

    def end(self, no: int, node_id: str) -> None:
        if self.nodes[node_id].standing.pop(no).unacked:
            self.couriers[node_id].nudge((no,))


async def test_20000_messages_come_once_and_in_order_while_devices_move() -> None:
    it = Moving()
    async with contextlib.AsyncExitStack() as stack:
        client = LinkClient(SECRET)
        stack.push_async_callback(client.stop)
        for node in it.nodes.values():
            server = HttpServer(LinkServer(node, SECRET), "127.0.0.1", 0)
            await server.start()
            stack.push_async_callback(server.stop)
            await it.registry.register(info(node.node_id, f"http://127.0.0.1:{server.port}"))
        for name in ("a", "b", "api"):
            courier = it.couriers[name] = Courier(name, client, it.routes, it.registry, it.clock)
            courier.local = it.nodes.get(name)
            stack.push_async_callback(courier.stop, 0)
        for no in it.devices:
            await it.attach(no, it.random.choice("ab"))
        sender = it.couriers["api"]

        async def keep_moving() -> None:
            while True:
                await it.move(it.random.choice(list(it.devices)))

        moving = [asyncio.create_task(keep_moving())]
        for seq in range(1, _MESSAGES + 1):
            no = it.random.randint(1, _DEVICES)
            it.devices[no].inbox.add(seq)
            sender.deliver(message(seq), seq, (no,))
            if seq % 20 == 0:
                await asyncio.sleep(0.001)
        moving[0].cancel()
        await asyncio.gather(*moving, return_exceptions=True)
        for no, device in it.devices.items():
            if device.session is None:  # it was about to come when the moving ended
                await it.attach(no, "a")
            for node_id, node in it.nodes.items():
                if no in node.standing and node.standing[no] is not device.session:
                    it.end(no, node_id)
        async with asyncio.timeout(20):
            while any(device.inbox for device in it.devices.values()):
                await asyncio.sleep(0.05)
    assert [device.wrong for device in it.devices.values() if device.wrong] == []
    assert sum(len(device.got) for device in it.devices.values()) == _MESSAGES
    assert sender.failed == 0
    assert sender.queued_bytes == 0
