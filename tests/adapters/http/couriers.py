"""Nodes as the link sees them, with devices that notice what they get; and a client that tests steer."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from pyroaring import BitMap

from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.adapters.http import Courier, LinkFailed
from longwire.adapters.http.server import LinkServer
from longwire.histogram import Histogram
from longwire.model import NodeInfo
from longwire.operations_model import NodeReport, SessionView
from longwire.ports.link import Called, Forward, Taken
from longwire.push_model import Broadcasted, BroadcastOrder, PushMessage, SegmentReceipts
from longwire.reasons import CloseCode, Status
from longwire.testing import ManualClock

SECRET = "the secret of all processes of a cluster"


def message(number: int, payload: bytes = b"x") -> PushMessage:
    return PushMessage(number.to_bytes(16, "big"), "note", payload, 1_764_000_000_000)


def number_of(told: PushMessage) -> int:
    return int.from_bytes(told.message_id, "big")


def info(node_id: str, url: str = "http://127.0.0.1:1", connections: int = 0) -> NodeInfo:
    return NodeInfo(node_id, "127.0.0.1", 1, None, "", internal_url=url, connections=connections)


@dataclass
class RecordingNode:
    """ports.link.LinkedNode that notes what it is asked, in order."""

    node_id: str
    here: set[int] = field(default_factory=set)
    clogged: set[int] = field(default_factory=set)
    arrived: list[tuple[int, int, int]] = field(default_factory=list)
    """(device_no, seq, number)."""
    batches: list[int] = field(default_factory=list)
    nudged: list[int] = field(default_factory=list)
    spreads: list[tuple[int, list[int]]] = field(default_factory=list)
    ended: list[tuple[int, int]] = field(default_factory=list)
    struck: list[tuple[int, CloseCode, str]] = field(default_factory=list)
    orders: list[BroadcastOrder] = field(default_factory=list)
    ended_pushes: list[int] = field(default_factory=list)
    caught_up: list[int] = field(default_factory=list)
    told: list[tuple[str, float, int]] = field(default_factory=list)
    answer_after_s: float = 0.0

    def has(self, device_no: int) -> bool:
        return device_no in self.here

    def number_of(self, device_id: str) -> int | None:
        device_no = int(device_id.removeprefix("d"))
        return device_no if device_no in self.here else None

    def arrive(self, forwards: Sequence[Forward]) -> list[Taken]:
        self.batches.append(len(forwards))
        return [self._take(forward) for forward in forwards]

    def _take(self, forward: Forward) -> Taken:
        gone = tuple(no for no in forward.receivers if no not in self.here)
        read = [no for no in forward.receivers if no in self.here and no not in self.clogged]
        self.arrived += [(no, forward.seq, number_of(forward.message)) for no in read]
        return Taken(gone, () if forward.seq else tuple(read))

    def spread(self, message: PushMessage, receivers: BitMap) -> None:
        self.spreads.append((number_of(message), sorted(receivers)))

    def end_older(self, sessions: Sequence[tuple[int, int]]) -> None:
        self.ended += sessions

    def nudge(self, devices: BitMap) -> BitMap:
        self.nudged += [no for no in devices if no in self.here]
        return BitMap(no for no in devices if no not in self.here)

    def strike(self, device_no: int, code: CloseCode, reason: str) -> bool:
        self.struck.append((device_no, code, reason))
        return device_no in self.here

    async def broadcast(self, node_id: str, order: BroadcastOrder) -> Broadcasted:
        assert node_id == self.node_id
        self.orders.append(order)
        return Broadcasted(BitMap(self.here) & order.receivers)

    async def end_push(self, push_no: int) -> list[SegmentReceipts]:
        self.ended_pushes.append(push_no)
        latency = Histogram()
        latency.add(12.0)
        return [SegmentReceipts(push_no, 0, BitMap(self.here), BitMap(), latency)]

    async def catch_up(self, devices: BitMap) -> None:
        self.caught_up += devices

    async def call(
        self, device_no: int, command_id: bytes, method: str, payload: bytes, timeout_ms: int, trace: bytes = b""
    ) -> Called:
        if device_no not in self.here:
            return Called(Status.OFFLINE)
        if self.answer_after_s:
            await asyncio.sleep(self.answer_after_s)
        return Called(Status.OK, method.encode() + payload, self.node_id)

    async def sessions(self, device_nos: Sequence[int]) -> list[SessionView | None]:
        return [SessionView(no, "s", self.node_id, 2, 1, 1, "tcp") if no in self.here else None for no in device_nos]

    async def report(self, node_id: str) -> NodeReport | None:
        assert node_id == self.node_id
        return NodeReport(self.node_id, len(self.here), 10, 1, 2, 3, 4, 0.5, 6, 7.0, 8.0, 9, (1.0, None, None))

    def session_count(self) -> int:
        return len(self.here)

    def begin_drain(self, within_s: float) -> None:
        self.told.append(("drain", within_s, 0))

    def end_drain(self) -> None:
        self.told.append(("undrain", 0.0, 0))

    def move_away(self, count: int, within_s: float) -> int:
        self.told.append(("move", within_s, count))
        return min(count, len(self.here))


@dataclass
class Posted:
    """A call that is on its way."""

    node_id: str
    name: str
    body: bytes
    answer: asyncio.Future[bytes]


class SteeredClient:
    """Stands for LinkClient: calls reach the nodes' servers when a test says so, or at once."""

    def __init__(self) -> None:
        self.servers: dict[str, LinkServer] = {}
        self.waiting: list[Posted] = []
        self.is_held = False
        self.down: set[str] = set()
        self.posts: list[tuple[str, str]] = []

    async def post(self, node: NodeInfo, name: str, body: bytes, within_s: float) -> bytes:
        self.posts.append((node.node_id, name))
        if node.node_id in self.down:
            raise LinkFailed("down", was_sent=False)
        if not self.is_held:
            return await self.carry_out(node.node_id, name, body)
        posted = Posted(node.node_id, name, body, asyncio.get_running_loop().create_future())
        self.waiting.append(posted)
        return await posted.answer

    async def carry_out(self, node_id: str, name: str, body: bytes) -> bytes:
        server = self.servers.get(node_id)
        if server is None:
            raise LinkFailed("dead", was_sent=False)
        return await server._call(name, body)

    def keep_only(self, urls: object) -> None:
        pass

    async def stop(self) -> None:
        pass


@dataclass
class Cluster:
    """Two nodes and a courier on a third, by default one without sessions."""

    clock: ManualClock
    routes: EmbeddedRoutes
    registry: EmbeddedRegistry
    client: SteeredClient
    courier: Courier
    nodes: dict[str, RecordingNode]
    epochs: itertools.count = field(default_factory=itertools.count)

    @classmethod
    async def make(cls, *node_ids: str, local: RecordingNode | None = None) -> "Cluster":
        clock = ManualClock()
        routes, registry, client = EmbeddedRoutes(clock), EmbeddedRegistry(), SteeredClient()
        name = local.node_id if local is not None else "api"
        courier = Courier(name, client, routes, registry, clock, sleep=clock.sleep)  # type: ignore[arg-type]
        courier.local = local
        nodes = {node_id: RecordingNode(node_id) for node_id in node_ids}
        for node in nodes.values():
            client.servers[node.node_id] = LinkServer(node, SECRET)
            await registry.register(info(node.node_id))
        if local is not None:
            await registry.register(info(local.node_id))
        return cls(clock, routes, registry, client, courier, nodes)

    async def attach(self, node: RecordingNode, *device_nos: int) -> None:
        await self.routes.attach(node.node_id, device_nos)
        node.here |= set(device_nos)
