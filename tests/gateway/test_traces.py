"""What the node tells of traced messages, and that it does nothing at all for the others."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from house import House
from pyroaring import BitMap
from raw_peer import Peer
from two_nodes import Nodes

from longwire.application import Longwire
from longwire.ids import new_message_id
from longwire.limits import Limits
from longwire.push.commands import CommandMode, Commands
from longwire.reasons import Status
from longwire.traces import CALL, MARKED, Hop, Marks, Traces
from longwire.wire.packets import Push, Reply, Request, Send

TRACE = bytes(range(1, 25))
OF_API = Traces().enter(TRACE, is_trusted=True, says_sampled=True)


class Told(Traces):
    """Traces that keep what they tell, and count what they are asked."""

    def __init__(self, ratio: float = 0.0) -> None:
        self.hops: list[Hop] = []
        self.asked = 0
        super().__init__(ratio=ratio, tells=[self.hops.append])

    def enter(self, *args, **more):
        self.asked += 1
        return super().enter(*args, **more)

    def marked(self, *args, **more):
        self.asked += 1
        return super().marked(*args, **more)

    def hop(self, *args, **more):
        self.asked += 1
        super().hop(*args, **more)

    @property
    def names(self) -> list[str]:
        return [hop.name for hop in self.hops]

    def the(self, name: str) -> Hop:
        (hop,) = [hop for hop in self.hops if hop.name == name]
        return hop


# Ids, numbers and words of ours: no payload, address, token, kind or name of a group.
FACTS = {
    *("message_id", "device_id", "session_id", "command_id", "seq", "handle", "status", "reason", "way"),
    *("receivers", "online", "to_node"),
}


@pytest.fixture
async def told(houses) -> AsyncIterator[Callable[..., Awaitable[House]]]:
    """Starts a node that tells this share of traces."""
    made: list[House] = []

    async def start(ratio: float = 0.0, **limits: object) -> House:
        house = houses(**limits)
        house.traces = Told(ratio)
        made.append(house)
        return await house.start()

    yield start
    for house in made:
        assert {name for hop in house.traces.hops for name, _ in hop.facts} <= FACTS


def mark(house: House, *device_ids: str) -> None:
    house.traces.set_marks(Marks(BitMap([house.no_of(device_id) for device_id in device_ids])))


def facts(hop: Hop) -> dict:
    return dict(hop.facts)


async def acknowledged(house: House, peer: Peer) -> Push:
    frame = await peer.push()
    peer.ack(frame.correlation)
    await peer.ping()
    await house.settled()
    return frame.packet


# Untraced


async def test_without_marks_an_untraced_message_asks_the_traces_nothing(told, flavour) -> None:
    house = await told(ratio=1)
    receiver, sender = await house.device("d-2", flavour), await house.device("d-1", flavour)
    await house.group("g", "d-1", "d-2")
    for n in range(20):
        sender.relay("device:d-2", b"%d" % n)
        sender.relay("group:g")
        sender.relay("")
    assert (await sender.tell("device:d-2")).status == Status.OK
    assert (await sender.tell("device:d-2", ttl_s=0)).status == Status.OK
    assert (await sender.tell("device:nobody")).status == Status.UNKNOWN_TARGET
    for frame in await receiver.pushes(42):
        assert frame.trace == b""
        if frame.wants_receipt:
            receiver.ack(frame.correlation)
    await receiver.ping()
    await house.push("d-1", "d-2")
    await house.settled()
    assert house.traces.asked == 0


async def test_a_traced_message_that_is_not_sampled_keeps_its_trace_and_is_not_told(told) -> None:
    house = await told(ratio=0)
    receiver, sender = await house.device("d-2"), await house.device("d-1")
    await sender.tell("device:d-2", trace=TRACE)
    sender.send(Send(new_message_id(), "device:d-2", "chat", b"1"), trace=TRACE)
    for frame in await receiver.pushes(2):
        assert (frame.trace[:16], frame.trace[23] & 1) == (TRACE[:16], 0)
    await house.settled()
    assert house.traces.hops == []


# A message's way


async def test_a_reliable_message_is_told_from_its_entry_to_its_acknowledgement(told, flavour) -> None:
    house = await told(ratio=1)
    receiver, sender = await house.device("d-2", flavour), await house.device("d-1", flavour)
    message_id = new_message_id()
    assert (await sender.tell("device:d-2", message_id=message_id, trace=TRACE)).status == Status.OK
    await acknowledged(house, receiver)
    assert house.traces.names == ["message.accepted", "message.written", "message.acked"]
    entry, written, acked = house.traces.hops
    assert (entry.parent, entry.trace[:16]) == (TRACE[16:], TRACE[:16])
    assert {hop.parent for hop in (written, acked)} == {entry.span}
    assert len({hop.span for hop in house.traces.hops}) == 3
    assert acked.began_ns <= acked.ended_ns
    assert facts(entry) == {"message_id": message_id.hex(), "device_id": "d-1", "status": "ok"}
    assert facts(acked)["device_id"] == facts(written)["device_id"] == "d-2"
    assert facts(written)["seq"] == 1


async def test_an_acknowledgement_ends_what_is_kept_of_a_traced_message(told) -> None:
    house = await told(ratio=1)
    receiver, sender = await house.device("d-2"), await house.device("d-1")
    for _ in range(3):
        await sender.tell("device:d-2", trace=TRACE)
    assert len(house.node._delivery._traced) == 3
    for _ in range(3):
        await acknowledged(house, receiver)
    assert house.node._delivery._traced == {}


async def test_a_relayed_message_is_told_as_accepted_and_written(told, flavour) -> None:
    house = await told(ratio=1)
    receiver, sender = await house.device("d-2", flavour), await house.device("d-1", flavour)
    sender.send(Send(new_message_id(), "device:d-2", "chat", b"1"), trace=TRACE)
    frame = await receiver.push()
    assert house.traces.names == ["message.accepted", "message.written"]
    assert house.traces.hops[0].span == frame.trace[16:]


async def test_a_refused_message_is_told_with_its_status(told) -> None:
    house = await told(ratio=1)
    sender = await house.device("d-1")
    assert (await sender.tell("device:nobody", trace=TRACE)).status == Status.UNKNOWN_TARGET
    assert (await sender.tell("", kind="", trace=TRACE)).status == Status.BAD_REQUEST
    first, second = house.traces.hops
    assert (first.name, first.is_error, facts(first)["status"]) == ("message.refused", True, "unknown_target")
    assert (second.name, facts(second)["status"]) == ("uplink.refused", "bad_request")


async def test_a_message_for_who_is_away_is_told_to_wait_and_again_when_it_is_written(told) -> None:
    house = await told(ratio=1)
    await house.register("d-2")
    sender = await house.device("d-1")
    await sender.tell("device:d-2", trace=TRACE)
    assert house.traces.names == ["message.accepted", "message.waiting"]
    assert facts(house.traces.hops[1])["reason"] == "offline"
    await acknowledged(house, await house.device("d-2"))
    assert house.traces.names[2:] == ["message.written", "message.acked"]
    assert {hop.trace for hop in house.traces.hops} == {house.traces.hops[0].trace}


async def test_a_message_to_the_application_and_to_a_handler_in_place_is_told(told, app) -> None:
    seen = []

    @app.uplink("now", durable=False)
    async def now() -> None:
        call = CALL.get()
        seen.append(None if call is None else call.trace_id)

    house = await told(ratio=1)
    sender = await house.device("d-1")
    await sender.tell("", kind="hello", trace=TRACE)
    await sender.tell("", kind="now", trace=TRACE)
    await sender.tell("", kind="now")
    assert house.traces.names == ["uplink.accepted", "uplink.accepted"]
    assert seen == [TRACE[:16].hex(), None], "what the handler logs belongs to the trace"


async def test_a_request_of_a_device_is_told(told, app) -> None:
    @app.request("sum")
    async def add(numbers: list[int]) -> int:
        return sum(numbers)

    house = await told(ratio=1)
    peer = await house.device("d-1")
    peer.send(Request("sum", b"[1,2]"), 7, trace=TRACE)
    await peer.get(Reply, 7)
    hop = house.traces.the("request.handled")
    assert (hop.parent, facts(hop)) == (TRACE[16:], {"device_id": "d-1", "status": "ok"})


async def test_a_command_is_told_with_its_reply_and_with_its_silence(told) -> None:
    house = await told()
    peer = await house.device("d-1")
    service = Commands(house.accounts, house.node, house.commands, house.clock, house.limits, house.traces)
    await service.run("d-1", "go", b"{}", 5_000, CommandMode.ASYNC, trace=OF_API)
    frame = await peer.next()
    assert (frame.trace, house.traces.names) == (OF_API, ["command.sent"])
    peer.send(Reply(0, b"{}"), frame.correlation)
    await house.until(lambda: len(house.traces.hops) == 2)
    assert house.traces.the("command.replied").parent == OF_API[16:]
    await service.run("d-1", "go", b"{}", 1, CommandMode.ASYNC, trace=OF_API)
    await house.until(lambda: len(house.traces.hops) == 4)
    assert house.traces.the("command.timed_out").is_error
    await service.stop()


async def test_a_push_is_told_in_sum_and_not_device_by_device(told) -> None:
    house = await told()
    peers = [await house.device(f"d-{n}") for n in range(3)]
    await house.register("away")
    await house.push("d-0", "d-1", "d-2", "away", trace=OF_API)
    for peer in peers:
        await acknowledged(house, peer)
    hop = house.traces.the("push.fanned_out")
    assert house.traces.names == ["push.fanned_out"]
    assert {name: facts(hop)[name] for name in ("receivers", "online")} == {"receivers": 4, "online": 3}


# Marks


async def test_every_message_from_and_to_a_marked_device_is_told(told, flavour) -> None:
    house = await told()
    marked, other, third = [await house.device(f"d-{n}", flavour) for n in range(3)]
    mark(house, "d-0")
    other.relay("device:d-2")
    await third.push()
    assert house.traces.hops == [], "nobody of these is marked"
    other.relay("device:d-0")
    frame = await marked.push()
    assert frame.trace[23] & MARKED
    assert house.traces.names == ["message.accepted", "message.written"]
    await marked.tell("device:d-2", trace=TRACE)
    await acknowledged(house, third)
    assert house.traces.names[2:] == ["message.accepted", "message.written", "message.acked"]
    assert house.traces.hops[2].trace[:16] == TRACE[:16]
    mark(house)
    other.relay("device:d-0")
    assert (await marked.push()).trace == b""


async def test_what_waited_for_a_marked_device_since_before_the_mark_is_told_when_it_is_written(told) -> None:
    house = await told()
    await house.register("d-0")
    sender = await house.device("d-1")
    await sender.tell("device:d-0")
    assert house.traces.hops == []
    mark(house, "d-0")
    await acknowledged(house, await house.device("d-0"))
    assert house.traces.names == ["message.written", "message.acked"]
    assert house.traces.hops[0].trace == house.traces.hops[1].trace


async def test_of_a_push_and_of_a_group_message_a_marked_receiver_is_told_by_itself(told) -> None:
    house = await told()
    peers = [await house.device(f"d-{n}") for n in range(3)]
    mark(house, "d-1")
    await house.push("d-0", "d-1", "d-2")
    for peer in peers:
        await acknowledged(house, peer)
    assert house.traces.names == ["message.written", "message.acked"]
    assert {facts(hop)["device_id"] for hop in house.traces.hops} == {"d-1"}
    house.traces.hops.clear()
    await house.group("g", "d-0", "d-1", "d-2")
    peers[0].relay("group:g")
    await house.settled()
    assert house.traces.names == ["message.accepted", "message.fanned_out", "message.written"]
    assert facts(house.traces.hops[2])["device_id"] == "d-1"


async def test_a_push_that_a_marked_device_gets_when_it_comes_back_is_told(told) -> None:
    house = await told()
    await house.register("d-0")
    await house.push("d-0")
    mark(house, "d-0")
    peer = await house.device("d-0")
    await acknowledged(house, peer)
    assert house.traces.names == ["message.written", "message.acked"]
    assert facts(house.traces.hops[0])["way"] == "catch-up"


# Two nodes


@pytest.fixture
async def nodes(tmp_path: Path, app: Longwire) -> AsyncIterator[Nodes]:
    nodes = Nodes(tmp_path, Limits(), app)
    nodes.traces_of = {1: Told(ratio=1), 2: Told()}
    async with AsyncExitStack() as stack:
        await nodes.start()
        stack.push_async_callback(nodes.stop)
        yield nodes


@pytest.mark.parametrize("is_reliable", [True, False])
async def test_a_trace_goes_over_the_link_and_each_node_tells_its_part(nodes, flavour, is_reliable) -> None:
    sender, receiver = await nodes.at(0, "s", flavour), await nodes.at(1, "r", flavour)
    if is_reliable:
        assert (await sender.tell("device:r", trace=TRACE)).status == Status.OK
    else:
        sender.send(Send(new_message_id(), "device:r", "chat", b"1"), trace=TRACE)
    frame = await receiver.push()
    if is_reliable:
        receiver.ack(frame.correlation)
    await receiver.ping()
    await nodes.settled()
    here, there = nodes.traces_of[1], nodes.traces_of[2]
    assert here.names == ["message.accepted", "link.forward"]
    assert there.names == ["link.arrived", "message.written", *(["message.acked"] if is_reliable else [])]
    entry, *others = [*here.hops, *there.hops]
    assert frame.trace == entry.trace, "the device goes on with the entry's span"
    assert {hop.parent for hop in others} == {entry.span}
    assert {hop.trace for hop in others} == {entry.trace}
    assert facts(here.the("link.forward"))["to_node"] == "n2~0001"


async def test_a_group_message_is_told_on_every_node_that_it_goes_to(nodes) -> None:
    sender, receiver = await nodes.at(0, "s"), await nodes.at(1, "r")
    await nodes.group("g", "s", "r")
    sender.send(Send(new_message_id(), "group:g", "chat", b"1"), trace=TRACE)
    await receiver.push()
    await nodes.settled()
    assert set(nodes.traces_of[1].names) == {"message.accepted", "link.forward", "message.fanned_out"}
    assert nodes.traces_of[2].names == ["link.arrived", "message.fanned_out"]


async def test_a_forward_that_fails_is_told_as_an_error_and_the_message_again_when_it_is_read(nodes) -> None:
    sender, receiver = await nodes.at(0, "s"), await nodes.at(1, "r")
    nodes.rooms[0].client.failing.add("forward")
    await sender.tell("device:r", trace=TRACE)
    await receiver.push()
    await nodes.settled()
    assert nodes.traces_of[1].the("link.forward").is_error
    assert nodes.traces_of[2].names == ["message.written"]
