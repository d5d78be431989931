"""The courier against every order of events that hypothesis finds: calls that are lost, answered late or not at all,
devices that move while messages are under way, nodes that die.

The sender is on node ``here``; receivers are on it and on others. A device takes what its present session is written,
each message once, and must see them in the order they were committed. When the faults are over, everybody with a
session has everything, without the minute's look of the safety net.
"""

import asyncio
from collections.abc import Sequence

from couriers import SECRET, Posted, RecordingNode, SteeredClient, info, message
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pyroaring import BitMap

from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.adapters.http import Courier, LinkFailed, LinkServer
from longwire.ports.link import Forward, Taken
from longwire.testing import ManualClock, settle

DEVICES = (1, 2)


class Device:
    def __init__(self) -> None:
        self.session: Session | None = None
        self.got: list[int] = []
        self.inbox: set[int] = set()
        self.relayed: list[int] = []
        self.wrong = ""

    def take(self, session: "Session", seq: int) -> None:
        if session is not self.session:
            session.unacked.add(seq)  # a connection that the device has left
            return
        if seq not in self.got:
            if self.got and seq < self.got[-1]:
                self.wrong = f"{seq} after {self.got[-1]}"  # no assert: a courier logs what its node raises
            self.got.append(seq)
        self.inbox.discard(seq)


class Session:
    """As gateway/delivery.py keeps it: what came by a read, and what is unacknowledged."""

    def __init__(self, device: Device, epoch: int, waits: bool) -> None:
        self.device = device
        self.epoch = epoch
        self.owes_read = waits
        self.read_to = 0
        self.unacked: set[int] = set()

    def offer(self, seq: int) -> None:
        if seq > self.read_to and seq not in self.unacked:
            self.device.take(self, seq)

    def read(self) -> None:
        for seq in sorted(self.device.inbox):
            if seq > self.read_to:
                self.read_to = seq
                if seq not in self.unacked:
                    self.device.take(self, seq)


class ModelNode(RecordingNode):
    """A node with sessions that stand, and some that are about to."""

    def __init__(self, node_id: str) -> None:
        super().__init__(node_id)
        self.standing: dict[int, Session] = {}
        self.arriving: dict[int, Session] = {}

    def has(self, device_no: int) -> bool:
        return device_no in self.standing

    def arrive(self, forwards: Sequence[Forward]) -> list[Taken]:
        return [self._arrive(forward) for forward in forwards]

    def _arrive(self, forward: Forward) -> Taken:
        gone, written = [], []
        for no in forward.receivers:
            session = self.standing.get(no)
            if session is not None:
                if forward.seq:
                    session.offer(forward.seq)
                else:
                    written.append(no)
                    if session is session.device.session:
                        session.device.relayed.append(int.from_bytes(forward.message.message_id, "big"))
            elif no in self.arriving and forward.seq:
                self.arriving[no].owes_read = True
            elif no not in self.arriving:
                gone.append(no)
        return Taken(tuple(gone), tuple(written))

    def nudge(self, devices: BitMap) -> BitMap:
        missing = BitMap()
        for no in devices:
            if no in self.standing:
                self.standing[no].read()
            elif no in self.arriving:
                self.arriving[no].owes_read = True
            else:
                missing.add(no)
        return missing


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = ManualClock()
        self.registry = EmbeddedRegistry()
        self.devices = {no: Device() for no in DEVICES}
        self.routes = EmbeddedRoutes(self.clock, waits=lambda no: bool(self.devices[no].inbox))
        self.client = SteeredClient()
        self.client.is_held = True
        self.late: list[tuple[str, str, bytes]] = []
        self.nodes: dict[str, ModelNode] = {}
        self.couriers: dict[str, Courier] = {}
        self.seq = 0
        self.told = 0
        self.relays = 0
        self.faults = 0
        for node_id in ("here", "a", "b"):
            self.loop.run_until_complete(self._add(node_id))
        for no, node_id in zip(DEVICES, ("a", "here"), strict=True):
            self.connect(no, node_id)
            self.open(no)
        self.here, self.courier = self.nodes["here"], self.couriers["here"]

    async def _add(self, node_id: str) -> None:
        node = self.nodes[node_id] = ModelNode(node_id)
        courier = Courier(node_id, self.client, self.routes, self.registry, self.clock, sleep=self.clock.sleep)  # type: ignore[arg-type]
        courier.local = node
        self.couriers[node_id] = courier
        self.client.servers[node_id] = LinkServer(node, SECRET)
        await self.registry.register(info(node_id))

    def run(self, turns: int = 30) -> None:
        self.loop.run_until_complete(settle(turns))

    def call(self, plain: object, *arguments: object) -> None:
        """A plain call, on the loop."""

        async def on_the_loop() -> None:
            plain(*arguments)  # type: ignore[operator]

        self.loop.run_until_complete(on_the_loop())

    # -- what happens

    @rule(no=st.sampled_from(DEVICES))
    def send(self, no: int) -> None:
        self.call(self._send, no)

    @rule(no=st.sampled_from(DEVICES), count=st.integers(1, 3))
    def send_through(self, no: int, count: int) -> None:
        """All is well for a moment."""
        for _ in range(count):
            self.call(self._send, no)
        self.answer_all(-1)

    @rule(at=st.integers(-2, 2))
    def answer_all(self, at: int) -> None:
        self.run()
        while self.client.waiting:
            posted = self.client.waiting.pop(at % len(self.client.waiting))
            self.loop.run_until_complete(self._carry_out(posted, True))
            self.run()

    def _send(self, *receivers: int) -> None:
        self.seq += 1
        far = []
        for no in receivers:
            self.devices[no].inbox.add(self.seq)
            session = self.here.standing.get(no)
            if session is None:
                far.append(no)
            else:
                session.offer(self.seq)
        if far:
            self.courier.deliver(message(self.seq), self.seq, far)

    @rule()
    def send_to_all(self) -> None:
        self.call(self._send, *DEVICES)

    @rule(no=st.sampled_from(DEVICES))
    def relay(self, no: int) -> None:
        self.relays += 1

        def done(_written: tuple[int, ...]) -> None:
            self.told += 1

        self.call(self.courier.relay, message(self.relays), (no,), done)

    @rule(no=st.sampled_from(DEVICES), node_id=st.sampled_from(("here", "a", "b")))
    def connect(self, no: int, node_id: str) -> None:
        self.loop.run_until_complete(self._connect(no, node_id))

    async def _connect(self, no: int, node_id: str) -> None:
        device, node = self.devices[no], self.nodes[node_id]
        if node_id not in self.client.servers or any(no in other.arriving for other in self.nodes.values()):
            return
        [attached] = await self.routes.attach(node_id, (no,))
        device.session = None
        node.arriving[no] = Session(device, attached.epoch, attached.waits)

    @rule(no=st.sampled_from(DEVICES), node_id=st.sampled_from(("here", "a", "b")))
    def take_over(self, no: int, node_id: str) -> None:
        """Without a word to the old session."""
        self.connect(no, node_id)
        self.open(no)

    @rule(no=st.sampled_from(DEVICES), node_id=st.sampled_from(("here", "a", "b")), at=st.integers(-2, 2))
    def move_under_traffic(self, no: int, node_id: str, at: int) -> None:
        self.send_through(no, 1)
        self.take_over(no, node_id)
        self.send_through(no, 1)
        self.end_older(no)
        self.send(no)
        self.answer_all(at)

    @rule(no=st.sampled_from(DEVICES))
    def open(self, no: int) -> None:
        self.call(self._open, no)

    def _open(self, no: int) -> None:
        for node_id, node in self.nodes.items():
            session = node.arriving.pop(no, None)
            if session is None:
                continue
            if no in node.standing:
                self._end(node_id, no)
            node.standing[no] = session
            self.devices[no].session = session
            courier = self.couriers[node_id]
            courier.came(no)
            if session.owes_read or courier.is_under_way(no):
                session.read()

    @rule(no=st.sampled_from(DEVICES))
    def end_older(self, no: int) -> None:
        """Sessions that were taken over hear of it."""
        self.call(self._end_older, no)

    def _end_older(self, no: int) -> None:
        for node_id, node in self.nodes.items():
            if no in node.standing and node.standing[no] is not self.devices[no].session:
                self._end(node_id, no)

    def _end(self, node_id: str, no: int) -> None:
        session = self.nodes[node_id].standing.pop(no)
        if session.unacked:
            self.couriers[node_id].nudge((no,))

    @rule(no=st.sampled_from(DEVICES))
    def disconnect(self, no: int) -> None:
        self.loop.run_until_complete(self._disconnect(no))

    async def _disconnect(self, no: int) -> None:
        for node_id, node in self.nodes.items():
            session = node.standing.get(no)
            if session is not None and session is self.devices[no].session:
                self.devices[no].session = None
                self._end(node_id, no)
                await self.routes.detach(node_id, [(no, session.epoch)])

    # -- the calls between nodes

    @precondition(lambda self: self.client.waiting)
    @rule(at=st.integers(0, 9), is_answered=st.booleans())
    def carry_out(self, at: int, is_answered: bool) -> None:
        posted = self.client.waiting.pop(at % len(self.client.waiting))
        self.loop.run_until_complete(self._carry_out(posted, is_answered))

    async def _carry_out(self, posted: Posted, is_answered: bool) -> None:
        if posted.answer.done():
            return  # whoever asked has died
        try:
            answer = await self.client.carry_out(posted.node_id, posted.name, posted.body)
        except LinkFailed as error:
            posted.answer.set_exception(error)
            return
        if is_answered:
            posted.answer.set_result(answer)
        else:
            posted.answer.set_exception(LinkFailed("the answer was lost", was_sent=True))

    @precondition(lambda self: self.client.waiting)
    @rule(at=st.integers(0, 9), is_late=st.booleans())
    def lose(self, at: int, is_late: bool) -> None:
        posted = self.client.waiting.pop(at % len(self.client.waiting))
        if is_late and posted.name == "forward":
            self.late.append((posted.node_id, posted.name, posted.body))
        if not posted.answer.done():
            self.call(posted.answer.set_exception, LinkFailed("no answer", was_sent=True))

    @precondition(lambda self: self.late)
    @rule()
    def thaw(self) -> None:
        """A node that was frozen carries out what its callers have given up."""
        node_id, name, body = self.late.pop(0)
        if node_id in self.client.servers:
            self.loop.run_until_complete(self.client.carry_out(node_id, name, body))

    @rule(turns=st.integers(0, 6))
    def turn(self, turns: int) -> None:
        self.run(turns)

    @rule(seconds=st.sampled_from((0.3, 2.0, 11.0)))
    def wait(self, seconds: float) -> None:
        self.loop.run_until_complete(self.clock.run_for(seconds))

    @precondition(lambda self: self.faults < 2)
    @rule(node_id=st.sampled_from(("a", "b")))
    def die(self, node_id: str) -> None:
        self.faults += 1
        self.loop.run_until_complete(self._die(node_id))

    async def _die(self, node_id: str) -> None:
        node = self.nodes[node_id]
        self.client.servers.pop(node_id, None)
        await self.couriers[node_id].stop(0)
        for no, session in node.standing.items():
            if self.devices[no].session is session:
                self.devices[no].session = None
        node.standing.clear()
        node.arriving.clear()

    @precondition(lambda self: len(self.client.servers) < len(self.nodes))
    @rule()
    def notice(self) -> None:
        """The registry drops nodes that have died."""
        for node_id in self.nodes:
            if node_id not in self.client.servers:
                self.loop.run_until_complete(self.registry.leave(node_id))

    # -- what must hold

    @invariant()
    def one_call_with_bodies_a_node(self) -> None:
        forwards = [posted.node_id for posted in self.client.waiting if posted.name == "forward"]
        assert len(forwards) == len(set(forwards))

    @invariant()
    def in_order(self) -> None:
        assert not [device.wrong for device in self.devices.values() if device.wrong]

    def teardown(self) -> None:
        try:
            self.loop.run_until_complete(self._heal())
            self.in_order()
            for no, device in self.devices.items():
                if device.session is not None:
                    assert not device.inbox, f"{no} misses {device.inbox}"
            for device in self.devices.values():
                assert len(device.relayed) == len(set(device.relayed))
            assert self.told == self.relays
            assert self.courier.queued_bytes == 0
            assert not self.courier._receivers
            assert not self.courier.behind
        finally:
            for courier in self.couriers.values():
                self.loop.run_until_complete(courier.stop(0))
            self.loop.close()

    async def _heal(self) -> None:
        self.client.is_held = False
        for posted in self.client.waiting:
            await self._carry_out(posted, True)
        for node_id in self.nodes:
            if node_id not in self.client.servers:
                await self.registry.leave(node_id)
                await self.routes.sweep(node_id)
        for no in DEVICES:
            self._open(no)
            self._end_older(no)
        await self.clock.run_for(30)


Machine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestCourier = Machine.TestCase
