"""Messages between nodes, and every race of a device that moves between them (ports/across.py, PROTOCOL §2)."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from raw_peer import Peer
from two_nodes import Nodes

from longwire.adapters.sql.accounts import SqlAccounts
from longwire.application import Longwire
from longwire.errors import StoreUnavailable
from longwire.ids import new_message_id
from longwire.limits import Limits
from longwire.ports.routes import Route
from longwire.reasons import CloseCode, Status
from longwire.wire.packets import Connect, Connected, Push, Send, Sent


@pytest.fixture
async def make(tmp_path: Path, app: Longwire) -> AsyncIterator[Callable[..., Nodes]]:
    """Makes clusters with limits of the test's own; not started, stopped when the test is over."""
    made: list[Nodes] = []

    def make(size: int = 2, **limits: object) -> Nodes:
        limits = {"sends_per_s": 100_000, "send_burst": 100_000} | limits
        made.append(Nodes(tmp_path, replace(Limits(), **limits), app, size=size))  # type: ignore[arg-type]
        return made[-1]

    yield make
    async with AsyncExitStack() as stack:
        for nodes in made:
            if nodes.rooms:
                stack.push_async_callback(nodes.stop)


@pytest.fixture
async def nodes(make: Callable[..., Nodes]) -> Nodes:
    return await make().start()


def texts(frames) -> list[str]:
    return [frame.packet.payload.decode() for frame in frames]


async def taken_over(peer: Peer) -> None:
    assert (await peer.ended()).code == CloseCode.TAKEN_OVER


# Roads


async def test_messages_reach_a_device_on_another_node_in_their_order(nodes, flavour) -> None:
    receiver = await nodes.at(1, "r", flavour)
    sender = await nodes.at(0, "s")
    for n in range(300):
        sender.send(Send(new_message_id(), "device:r", "chat", b"%d" % n), n + 1, receipt=True)
    got = []
    while len(got) < 300:
        frame = await receiver.push()
        receiver.ack(frame.correlation)
        got += texts([frame])
    assert got == [str(n) for n in range(300)]
    for n in range(300):
        assert (await sender.get(Sent, n + 1)).status == 0
    await nodes.settled()
    assert await nodes.inbox("r") == []


async def test_a_message_for_who_is_nowhere_waits_and_comes_on_whatever_node_it_connects_to(nodes) -> None:
    await nodes.register("r")
    sender = await nodes.at(0, "s")
    assert (await sender.tell("device:r", b"a")).status == 0
    receiver = await nodes.at(1, "r")
    assert texts([await receiver.push()]) == ["a"]


async def test_a_user_s_devices_get_a_message_wherever_they_are(make) -> None:
    nodes = await make(3).start()
    await nodes.register("a", "b", "c", user="u")
    peers = [await nodes.at(at, name) for at, name in enumerate("abc")]
    sender = await nodes.at(0, "s")
    assert (await sender.tell("user:u", b"hello")).status == 0
    assert [texts([await peer.push()]) for peer in peers] == [["hello"]] * 3


async def test_at_most_once_messages_reach_other_nodes(nodes) -> None:
    receiver = await nodes.at(1, "r")
    await nodes.group("g", "r", "s")
    sender = await nodes.at(0, "s")
    sender.relay("device:r", b"1")
    assert texts([await receiver.push()]) == ["1"]
    sender.relay("group:g", b"2")
    assert texts([await receiver.push()]) == ["2"]
    assert await nodes.count("messages") == 0


async def test_a_ttl_of_zero_is_answered_once_the_other_nodes_have_said_who_was_there(nodes) -> None:
    receiver = await nodes.at(1, "r")
    sender = await nodes.at(0, "s")
    message_id = new_message_id()
    assert (await sender.tell("device:r", b"1", ttl_s=0, message_id=message_id)).status == Status.OK
    assert texts([await receiver.push()]) == ["1"]
    assert (await sender.tell("device:r", b"1", ttl_s=0, message_id=message_id)).status == Status.DUPLICATE
    await receiver.drop()
    await nodes.until(lambda: not nodes.rooms[1].node.hub.online)
    assert (await sender.tell("device:r", b"2", ttl_s=0)).status == Status.OFFLINE
    await nodes.register("nobody")
    assert (await sender.tell("device:nobody", b"3", ttl_s=0)).status == Status.OFFLINE


async def test_a_ttl_of_zero_is_ok_where_one_receiver_is_here_and_another_elsewhere(nodes) -> None:
    await nodes.register("a", "b", user="u")
    here, there, sender = await nodes.at(0, "a"), await nodes.at(1, "b"), await nodes.at(0, "s")
    assert (await sender.tell("user:u", b"1", ttl_s=0)).status == Status.OK
    assert texts([await here.push(), await there.push()]) == ["1", "1"]


# Full inboxes


async def test_a_full_inbox_of_a_device_on_another_node_refuses(make) -> None:
    nodes = await make(max_inbox=5, window=4).start()
    await nodes.at(1, "r")
    sender = await nodes.at(0, "s")
    assert [(await sender.tell("device:r", b"%d" % n)).status for n in range(6)] == [0] * 5 + [Status.OVERLOADED]
    assert len(await nodes.inbox("r")) == 5


async def test_a_full_inbox_of_a_device_that_is_away_loses_its_oldest(make) -> None:
    nodes = await make(max_inbox=5).start()
    await nodes.register("r")
    sender = await nodes.at(0, "s")
    for n in range(12):
        assert (await sender.tell("device:r", b"%d" % n)).status == 0
        nodes.clock.advance(1.5)  # that it is away is known for a second
    receiver = await nodes.peer_at(1)
    connected = await receiver.connect("r")
    assert connected.missed == 7
    assert texts(await receiver.pushes(5)) == ["7", "8", "9", "10", "11"]


async def test_where_nobody_can_say_who_is_away_a_full_inbox_refuses(make) -> None:
    nodes = await make(max_inbox=2).start()
    await nodes.register("r")
    sender = await nodes.at(0, "s")
    for _ in range(2):
        assert (await sender.tell("device:r")).status == 0
    await nodes.settled()
    nodes.clock.advance(1.5)
    nodes.routes.is_away = True
    assert (await sender.tell("device:r")).status == Status.OVERLOADED


# Devices that move


async def test_a_connect_elsewhere_ends_the_older_session_and_brings_what_it_did_not_acknowledge(nodes) -> None:
    old = await nodes.at(0, "r")
    sender = await nodes.at(0, "s")
    for n in range(3):
        assert (await sender.tell("device:r", b"%d" % n)).status == 0
    first, *_ = await old.pushes(3)
    old.ack(first.correlation)
    await old.ping()
    await nodes.settled()
    new = await nodes.at(1, "r")
    await taken_over(old)
    assert texts(await new.pushes(2)) == ["1", "2"]
    assert (await sender.tell("device:r", b"3")).status == 0
    assert texts([await new.push()]) == ["3"]
    await nodes.settled()
    assert await nodes.routes.find([nodes.no_of("r")]) == [Route("n2~0001", new_epoch(nodes, 1, "r"))]


def new_epoch(nodes: Nodes, at: int, device_id: str) -> int:
    session = nodes.rooms[at].node.hub.find(nodes.no_of(device_id))
    assert session is not None
    return session.epoch


async def test_nothing_is_overtaken_by_what_was_written_to_the_session_that_was_taken_over(make) -> None:
    """The old session is told late that it is over: what went there comes before what is sent after."""
    nodes = await make(3).start()
    old = await nodes.at(1, "r")
    sender = await nodes.at(0, "s")
    assert (await sender.tell("device:r", b"0")).status == 0
    frame = await old.push()
    old.ack(frame.correlation)
    await old.ping()
    await nodes.settled()
    gate = nodes.rooms[2].client.gate("end_older")
    new = await nodes.at(2, "r")
    assert (await sender.tell("device:r", b"1")).status == 0  # on the old route
    assert texts([await old.push()]) == ["1"]
    nodes.rooms[0].courier.came(nodes.no_of("r"))  # the sender's node learns of the new one
    assert (await sender.tell("device:r", b"2")).status == 0
    await asyncio.sleep(0.05)
    await new.ping()
    assert not new.frames
    gate.set()
    assert texts(await new.pushes(2)) == ["1", "2"]
    await taken_over(old)


async def test_a_node_that_cannot_be_told_does_not_hold_the_new_session_s_messages(nodes) -> None:
    await nodes.at(0, "r")
    nodes.rooms[1].client.failing.add("end_older")
    sender = await nodes.at(1, "s")
    new = await nodes.at(1, "r")
    assert (await sender.tell("device:r", b"1")).status == 0
    assert texts([await new.push()]) == ["1"]


async def test_an_older_session_that_was_not_told_is_ended_by_the_next_look(nodes) -> None:
    old = await nodes.at(0, "r")
    nodes.rooms[1].client.failing.add("end_older")
    await nodes.at(1, "r")
    nodes.clock.advance(1)
    await nodes.rooms[0].node.looks._run()
    await taken_over(old)


async def test_what_a_stale_route_brought_to_a_session_taken_over_comes_to_the_new_one(nodes) -> None:
    old = await nodes.at(0, "r")
    sender = await nodes.at(0, "s")
    nodes.rooms[1].client.failing.add("end_older")
    new = await nodes.at(1, "r")
    assert (await sender.tell("device:r", b"lost?")).status == 0  # the old session is still here
    await old.push()
    old_session = nodes.rooms[0].node.hub.find(nodes.no_of("r"))
    assert old_session is not None
    old_session.connection.close(CloseCode.TAKEN_OVER)
    assert texts([await new.push()]) == ["lost?"]


async def test_what_comes_between_the_attach_and_the_session_is_read_from_the_store(nodes) -> None:
    sender = await nodes.at(0, "s")
    await nodes.register("r")
    gate = nodes.routes.gates["n2~0001"] = asyncio.Event()
    receiver = await nodes.peer_at(1)
    receiver.send(Connect("t-r", "r"), 1)
    await nodes.until(lambda: nodes.rooms[1].node._handshake.arriving)
    assert (await sender.tell("device:r", b"1")).status == 0
    await nodes.until(lambda: nodes.rooms[1].node._handshake.arriving == {nodes.no_of("r"): True})
    gate.set()
    assert isinstance((await receiver.next()).packet, Connected)
    assert texts([await receiver.push()]) == ["1"]
    await nodes.hears_nothing(receiver)


async def test_of_two_connects_at_once_the_later_route_stands(make) -> None:
    nodes = await make(3).start()
    sender = await nodes.at(0, "s")
    await nodes.register("r")
    first_gate = nodes.routes.gates["n2~0001"] = asyncio.Event()
    first, second = await nodes.peer_at(1), await nodes.peer_at(2)
    first.send(Connect("t-r", "r"), 1)
    await nodes.until(lambda: nodes.rooms[1].node._handshake.arriving)
    await second.connect("r")
    await nodes.until(lambda: nodes.rooms[1].node._handshake.superseded)
    assert (await sender.tell("device:r", b"1")).status == 0
    assert texts([await second.push()]) == ["1"]
    first_gate.set()
    await taken_over(first)
    await nodes.settled()
    assert not nodes.rooms[1].node.hub.online
    assert await nodes.routes.find([nodes.no_of("r")]) == [Route("n3~0001", new_epoch(nodes, 2, "r"))]


async def test_messages_on_their_way_elsewhere_do_not_get_lost_when_their_receiver_comes_to_this_node(nodes) -> None:
    await nodes.at(1, "r")
    sender = await nodes.at(0, "s")
    gate = nodes.rooms[0].client.gate("forward")
    assert (await sender.tell("device:r", b"1")).status == 0
    await nodes.until(lambda: "forward" in nodes.rooms[0].client.sent)
    new = await nodes.at(0, "r")
    assert (await sender.tell("device:r", b"2")).status == 0
    gate.set()
    assert texts(await new.pushes(2)) == ["1", "2"]
    await nodes.hears_nothing(new)


async def test_what_a_lost_request_carried_comes_before_what_follows_it(nodes) -> None:
    receiver = await nodes.at(1, "r")
    sender = await nodes.at(0, "s")
    nodes.rooms[0].client.failing.add("forward")
    assert (await sender.tell("device:r", b"1")).status == 0
    await nodes.until(lambda: "nudge" in nodes.rooms[0].client.sent)
    nodes.rooms[0].client.failing.clear()
    for n in range(2, 6):
        assert (await sender.tell("device:r", b"%d" % n)).status == 0
    assert texts(await receiver.pushes(5)) == ["1", "2", "3", "4", "5"]
    await nodes.hears_nothing(receiver)


async def test_a_request_whose_answer_is_lost_is_not_delivered_twice(nodes) -> None:
    receiver = await nodes.at(1, "r")
    sender = await nodes.at(0, "s")
    nodes.rooms[0].client.lost.add("forward")
    assert (await sender.tell("device:r", b"1")).status == 0
    nodes.rooms[0].client.lost.clear()
    assert texts([await receiver.push()]) == ["1"]
    await nodes.hears_nothing(receiver)


async def test_messages_of_two_nodes_out_of_turn_all_come_once(make) -> None:
    nodes = await make(3).start()
    receiver = await nodes.at(2, "r")
    one, two = await nodes.at(0, "s-1"), await nodes.at(1, "s-2")
    gate = nodes.rooms[0].client.gate("forward")
    assert (await one.tell("device:r", b"10")).status == 0
    assert (await two.tell("device:r", b"11")).status == 0
    later = await receiver.push()
    assert texts([later]) == ["11"]
    receiver.ack(later.correlation)
    gate.set()
    earlier = await receiver.push()
    assert texts([earlier]) == ["10"]
    # A read of the store now finds nothing that it had.
    nodes.rooms[2].node._delivery.nudge(nodes.rooms[2].node.hub.find(nodes.no_of("r")))
    await nodes.hears_nothing(receiver)
    receiver.ack(earlier.correlation)
    await receiver.ping()
    await nodes.settled()
    assert await nodes.inbox("r") == []


async def test_what_a_node_died_with_between_commit_and_forward_comes_with_the_next_look(nodes) -> None:
    receiver = await nodes.at(1, "r")
    sender = await nodes.at(0, "s")
    busy = await nodes.at(1, "busy")
    nodes.rooms[0].courier.deliver = lambda *_: None  # it is killed here
    assert (await sender.tell("device:r", b"1")).status == 0
    await nodes.hears_nothing(receiver)
    await nodes.pass_time(31)
    assert texts([await receiver.push()]) == ["1"]
    await nodes.hears_nothing(busy)


@pytest.mark.parametrize("at", [0, 1], ids=["here", "on another node"])
async def test_a_repeat_of_what_a_node_died_with_comes_before_what_follows_it(make, at) -> None:
    nodes = await make(3).start()
    receiver = await nodes.at(at, "r")
    dying = await nodes.at(2, "s")
    nodes.rooms[2].courier.deliver = lambda *_: None  # it is killed here
    repeated = Send(new_message_id(), "device:r", "chat", b"1")
    dying.send(repeated, 1, receipt=True)
    assert (await dying.get(Sent, 1)).status == Status.OK
    sender = await nodes.at(0, "s")
    sender.send(repeated, 1, receipt=True)
    for n in range(2, 6):
        sender.send(Send(new_message_id(), "device:r", "chat", b"%d" % n), n, receipt=True)
    assert [(await sender.get(Sent, n)).status for n in range(1, 6)] == [Status.DUPLICATE, *[Status.OK] * 4]
    assert texts(await receiver.pushes(5)) == ["1", "2", "3", "4", "5"]
    await nodes.hears_nothing(receiver)


async def test_the_look_finds_what_was_missed_by_a_session_that_has_others_under_way(nodes) -> None:
    receiver = await nodes.at(1, "r")
    sender = await nodes.at(0, "s")
    deliver = nodes.rooms[0].courier.deliver
    nodes.rooms[0].courier.deliver = lambda *_: None
    assert (await sender.tell("device:r", b"1")).status == 0
    nodes.rooms[0].courier.deliver = deliver
    assert (await sender.tell("device:r", b"2")).status == 0
    assert texts([await receiver.push()]) == ["2"]
    await nodes.rooms[1].node._delivery.look()
    assert texts([await receiver.push()]) == ["1"]
    await nodes.hears_nothing(receiver)


# Routes that were lost, or are left over


async def test_routes_that_were_lost_are_put_back_and_nobody_is_disconnected(nodes) -> None:
    peers = [await nodes.at(1, f"d-{n}") for n in range(20)]
    nodes.clock.advance(1)
    nodes.routes.forget_all()
    reconcile = nodes.rooms[1].node._reconcile
    await reconcile.look()
    assert (reconcile.drift, reconcile.repaired) == (20, 20)
    assert await nodes.routes.count("n2~0001") == 20
    await reconcile.look()
    assert (reconcile.drift, reconcile.repaired) == (0, 20)
    for peer in peers:
        await peer.ping()
    sender = await nodes.at(0, "s")
    assert (await sender.tell("device:d-3")).status == 0
    await peers[3].push()


async def test_of_two_sessions_whose_routes_were_lost_the_newer_stays(nodes) -> None:
    old = await nodes.at(0, "r")
    nodes.clock.advance(1)
    nodes.routes.forget_all()
    new = await nodes.at(1, "r")
    nodes.clock.advance(1)
    for order in (0, 1):
        await nodes.rooms[order].node._reconcile.look()
    await taken_over(old)
    await new.ping()


async def test_routes_without_a_session_are_taken_out(nodes) -> None:
    await nodes.at(1, "r")
    no = nodes.no_of("r")
    await nodes.register("ghost", "elsewhere")
    await nodes.routes.attach("n1~0001", [nodes.no_of("ghost")])
    nodes.routes._there["n1~0001"].add(no)  # a bit that no route stands behind
    reconcile = nodes.rooms[0].node._reconcile
    await reconcile.look()
    assert reconcile.drift == 2
    assert await nodes.routes.find([nodes.no_of("ghost"), no]) == [None, Route("n2~0001", new_epoch(nodes, 1, "r"))]


async def test_a_late_detach_leaves_the_newer_route(nodes) -> None:
    old = await nodes.at(0, "r")
    epoch = new_epoch(nodes, 0, "r")
    await nodes.at(1, "r")
    await taken_over(old)
    await nodes.routes.detach("n1~0001", [(nodes.no_of("r"), epoch)])
    assert await nodes.routes.find([nodes.no_of("r")]) == [Route("n2~0001", new_epoch(nodes, 1, "r"))]


async def test_a_detach_that_failed_is_made_good_by_a_look_that_is_owed(nodes) -> None:
    peer = await nodes.at(0, "r")
    nodes.routes.is_away = True
    await peer.drop()
    await nodes.until(lambda: nodes.rooms[0].node.looks._is_owed)
    nodes.routes.is_away = False
    await nodes.pass_time(4)
    await nodes.settled()
    assert await nodes.routes.find([nodes.no_of("r")]) == [None]


async def test_looks_that_do_not_get_through_are_owed_until_they_do(nodes) -> None:
    await nodes.at(0, "r")
    nodes.routes.is_away = True
    await nodes.pass_time(31)
    await nodes.until(lambda: nodes.rooms[0].node.looks.failing == {"routes"})
    nodes.routes.is_away = False
    nodes.routes.forget_all()
    await nodes.pass_time(3)
    await nodes.until(lambda: not nodes.rooms[0].node.looks.failing)
    await nodes.settled()
    assert await nodes.routes.count("n1~0001") == 1


async def test_connects_are_refused_politely_while_the_route_table_is_away_and_sessions_stay(nodes) -> None:
    standing = await nodes.at(0, "r")
    await nodes.register("late")
    nodes.routes.is_away = True
    late = await nodes.peer_at(0)
    late.send(Connect("t-late", "late"), 1)
    close = await late.ended()
    assert (close.code, close.may_reconnect) == (CloseCode.OVERLOADED, True)
    await standing.ping()


# Engines that are away


class AwayTokens(SqlAccounts):
    async def check_tokens(self, token_hashes, now_ms):
        return [StoreUnavailable("away") for _ in token_hashes]


async def test_a_token_that_cannot_be_checked_now_is_no_refusal_for_good(make) -> None:
    nodes = make()
    nodes.with_engines(tokens=AwayTokens(nodes.database))
    await nodes.start()
    await nodes.register("r")
    peer = await nodes.peer_at(0)
    peer.send(Connect("t-r", "r"), 1)
    close = await peer.ended()
    assert (close.code, close.may_reconnect) == (CloseCode.OVERLOADED, True)


# All of it at once


@pytest.mark.parametrize("seed", range(2))
async def test_nothing_is_lost_and_nothing_of_one_sender_is_overtaken_while_devices_move(make, seed) -> None:
    nodes = await make(3).start()
    chance = random.Random(seed)
    names = [f"r-{n}" for n in range(6)]
    await nodes.register(*names)
    got: dict[str, list[str]] = {name: [] for name in names}
    peers: dict[str, Peer] = {}
    readers: dict[str, asyncio.Task[None]] = {}

    async def read(name: str, peer: Peer) -> None:
        while True:
            try:
                frame = await peer.next()
            except EOFError:
                return
            if isinstance(frame.packet, Push):
                text = frame.packet.payload.decode()
                if text not in got[name]:
                    got[name].append(text)
                if has_settled or chance.random() < 0.8:
                    peer.ack(frame.correlation)

    async def hop(name: str) -> None:
        await asyncio.sleep(chance.random() * 0.05)
        if name in readers:
            readers[name].cancel()
        peers[name] = await nodes.at(chance.randrange(3), name)
        readers[name] = asyncio.ensure_future(read(name, peers[name]))

    async def move(name: str) -> None:
        for _ in range(12):
            await hop(name)

    has_settled = False
    count = 150
    senders = [await nodes.at(at, f"s-{at}") for at in range(3)]

    async def send(at: int) -> None:
        for n in range(count):
            for name in names:
                senders[at].send(
                    Send(new_message_id(), f"device:{name}", "chat", f"{at}.{n}".encode()), n + 1, receipt=True
                )
            await asyncio.sleep(0.004)

    await asyncio.gather(*(send(at) for at in range(3)), *(move(name) for name in names))
    for peer in senders:
        for _ in range(count * len(names)):
            assert (await peer.get(Sent)).status == 0
    has_settled = True
    await asyncio.gather(*(hop(name) for name in names))
    await nodes.until(lambda: all(len(texts) == 3 * count for texts in got.values()))
    for name in names:
        for at in range(3):
            mine = [int(text.partition(".")[2]) for text in got[name] if text.startswith(f"{at}.")]
            assert mine == list(range(count)), (name, at, mine)
    for reader in readers.values():
        reader.cancel()
    for room in nodes.rooms:
        nodes.clock.advance(1)
        await room.node._reconcile.look()
        assert room.node._reconcile.drift == 0
