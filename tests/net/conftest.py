"""What the shells' tests share: a device port whose owner notes what it is told, on a wheel that a test turns."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))

from certificates import self_signed
from raw_peer import FLAVOURS, HANG_GUARD_S, Peer

from longwire.limits import Limits
from longwire.net.connection import Connection, DevicePort
from longwire.net.listener import Listener
from longwire.net.wheel import Wheel
from longwire.reasons import CloseCode
from longwire.testing import ManualClock
from longwire.wire.packets import Ping, Received


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], object]]:
    """The shells run on uvloop and nowhere else."""
    return {"uvloop": uvloop.new_event_loop}


class Owner:
    """A receiver that notes everything and takes every connection's first frame for its proof."""

    def __init__(self) -> None:
        self.received_frames: list[Received] = []
        self.closes: list[CloseCode | None] = []
        self.connections: list[Connection[str]] = []
        self.drained_count = 0
        self.due_in = 0
        self.breaks = False

    def received(self, connection: Connection[str], frame: Received) -> None:
        if self.breaks:
            raise RuntimeError("a bug")
        if connection.session is None:
            connection.session = "proved"
            connection.proved()
            self.connections.append(connection)
        self.received_frames.append(frame)

    def closed(self, connection: Connection[str], code: CloseCode | None) -> None:
        self.closes.append(code)

    def drained(self, connection: Connection[str]) -> None:
        self.drained_count += 1

    def due(self, connection: Connection[str]) -> int:
        if connection.session is None:
            connection.close(CloseCode.HANDSHAKE_TIMEOUT)
        return self.due_in


class Shore:
    """A listening device port and the peers that came to it."""

    def __init__(self, limits: Limits) -> None:
        self.clock = ManualClock()
        self.wheel = Wheel(self.clock.monotonic)
        self.owner = Owner()
        self.port: DevicePort[str] = DevicePort(self.owner, self.wheel, limits)
        self.peers: list[Peer] = []
        self.listeners: list[Listener] = []

    async def listen(self, *more: object, **how: object) -> Listener:
        listener = await Listener.open(self.port, "127.0.0.1", 0, *more, **how)
        self.listeners.append(listener)
        return listener

    async def peer(self, flavour: str = "native", **how: object) -> Peer:
        peer = await Peer.open(self.listeners[-1].port, flavour, **how)
        self.peers.append(peer)
        return peer

    async def proved(self, flavour: str = "native", **how: object) -> tuple[Peer, Connection[str]]:
        """A peer that has sent a frame, and its connection."""
        count = len(self.owner.connections)
        peer = await self.peer(flavour, **how)
        peer.send(Ping(), 1)
        await self.until(lambda: len(self.owner.connections) > count)
        return peer, self.owner.connections[-1]

    def pass_time(self, seconds: float) -> None:
        while seconds > 0:
            self.clock.advance(min(seconds, 1.0))
            self.wheel.advance()
            seconds -= 1.0

    async def until(self, is_so: Callable[[], object]) -> None:
        async with asyncio.timeout(HANG_GUARD_S):
            while not is_so():
                await asyncio.sleep(0.001)

    async def stop(self) -> None:
        for listener in self.listeners:
            listener.stop_accepting()
        for peer in self.peers:
            peer.writer.transport.abort()
        for connection in list(self.port.open):
            connection.abort()
        await asyncio.sleep(0.01)


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
async def shore(limits: Limits) -> AsyncIterator[Shore]:
    made = Shore(limits)
    await made.listen()
    yield made
    await made.stop()


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    return self_signed(tmp_path)
