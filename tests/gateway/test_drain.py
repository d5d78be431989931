"""How devices leave a node: MOVE at an even pace, CLOSE to who stays, and nobody told twice."""

import asyncio
import contextlib
import itertools

import pytest
from raw_peer import Peer

from longwire.gateway.drain import Drain
from longwire.model import NodeInfo
from longwire.reasons import CloseCode
from longwire.wire.packets import Close, Connect, Move, Ping, Pong

ELSEWHERE = NodeInfo("n2~0002", "h", 7300, None, "")
COUNT = 40


class Leaving:
    """A node with devices, the Drain under test, and another node to go to."""

    def __init__(self, house) -> None:
        self.house = house
        self.published: list[bool] = []
        node = house.node
        self.drain = Drain(
            node.node_id,
            node.hub,
            house.registry,
            node._admission,
            house.clock,
            lambda: self.published.append(node.info().is_draining),
        )
        self.peers: list[Peer] = []

    async def fill(self, count: int, flavour: str | None = None, *, beside: bool = True) -> "Leaving":
        if beside:
            await self.house.registry.register(ELSEWHERE)
        for number in range(count):
            self.peers.append(await self.house.device(f"d-{number}", *([flavour] if flavour else [])))
        return self

    async def pass_time(self, seconds: float) -> None:
        """As ticks come: four a second."""
        for _ in range(round(seconds * 4)):
            self.house.clock.advance(0.25)
            self.drain.tick()
        await asyncio.sleep(0)

    @property
    def told(self) -> int:
        state = self.drain.state()
        assert state is not None
        return state.told


async def leaving(house, count: int = COUNT, **how) -> Leaving:
    return await Leaving(house).fill(count, **how)


async def heard(peer: Peer) -> list[object]:
    """The packets a peer was sent until now, or until the end of its stream."""
    packets: list[object] = []
    peer.send(Ping())
    with contextlib.suppress(EOFError):
        while not isinstance(packet := (await peer.next()).packet, Pong):
            packets.append(packet)
    return packets


async def go(peers: list[Peer], house, left: int) -> None:
    """These devices end their connections, as those do that have moved."""
    for peer in peers:
        peer.close()
    await house.until(lambda: len(house.node.hub) == left)


async def test_everyone_is_told_to_move_once_and_evenly_over_six_tenths_of_the_time(house, flavour) -> None:
    world = await leaving(house, flavour=flavour)
    world.drain.begin(60.0)
    assert world.published == [True]
    told = []
    for _ in range(40):
        await world.pass_time(1.0)
        told.append(world.told)
    steps = [after - before for before, after in itertools.pairwise(told)]
    assert told[35] == COUNT
    assert told[17] in range(COUNT // 2 - 2, COUNT // 2 + 2)
    assert max(steps) <= 2
    for peer in world.peers:
        (move,) = await heard(peer)
        assert move == Move(5_000, "draining", "")


async def test_nobody_is_told_before_every_api_can_have_heard(house) -> None:
    world = await leaving(house, 4)
    world.drain.begin(10.0)
    await world.pass_time(0.75)
    assert world.told == 0
    await world.pass_time(0.5)
    assert world.told == 1


async def test_who_stays_is_closed_evenly_in_the_last_of_the_time(house) -> None:
    world = await leaving(house)
    world.drain.begin(20.0)
    await world.pass_time(16.75)
    assert len(house.node.hub) == COUNT
    left = []
    for _ in range(3):
        await world.pass_time(1.0)
        left.append(len(house.node.hub))
    assert left == sorted(left, reverse=True)
    assert all(0 < here < COUNT for here in left)
    await world.pass_time(0.5)
    assert len(house.node.hub) == 0
    state = world.drain.state()
    assert (state.state, state.closed, state.left, state.eta_s) == ("drained", COUNT, 0, 0.0)
    packets = [await heard(peer) for peer in world.peers]
    assert all(isinstance(move, Move) and close.code == CloseCode.DRAINING for move, close in packets)
    assert all(close.may_reconnect for _, close in packets)
    assert len({close.retry_after_ms for _, close in packets}) > 1


async def test_a_short_drain_tells_and_closes_within_its_time(house) -> None:
    world = await leaving(house, 8)
    world.drain.begin(1.0)
    await world.pass_time(1.0)
    assert len(house.node.hub) == 0
    assert isinstance((await heard(world.peers[0]))[-1], Close)


async def test_a_node_that_drains_takes_nobody_until_it_is_told_to(house) -> None:
    world = await leaving(house, 1)
    await house.register("late")
    world.drain.begin(60.0)
    late = await house.peer()
    late.send(Connect("t-late", "late"), 1)
    assert (await late.ended()).code == CloseCode.DRAINING
    world.drain.end()
    assert world.published == [True, False]
    assert world.drain.state() is None
    await house.device("late")
    await world.pass_time(60.0)
    assert len(house.node.hub) == 2


async def test_a_second_order_only_changes_the_time(house) -> None:
    world = await leaving(house)
    world.drain.begin(60.0)
    await world.pass_time(18.0)
    told = world.told
    assert 0 < told < COUNT
    world.drain.begin(10.0)
    await world.pass_time(6.25)
    state = world.drain.state()
    assert (state.told, state.sessions, state.within_s) == (COUNT, COUNT, 10.0)
    assert [len(await heard(peer)) for peer in world.peers] == [1] * COUNT


async def test_the_wait_ends_when_nobody_is_left(house) -> None:
    world = await leaving(house, 3)
    world.drain.begin(60.0, is_stopping=True)
    waiting = asyncio.ensure_future(world.drain.wait())
    await world.pass_time(5.0)
    assert not waiting.done()
    await go(world.peers, house, 0)
    await world.pass_time(0.25)
    await waiting


async def test_the_wait_ends_with_the_time_and_when_it_is_hurried(house) -> None:
    world = await leaving(house, 3)
    world.drain.begin(8.0, is_stopping=True)
    waiting = asyncio.ensure_future(world.drain.wait())
    await world.pass_time(6.0)
    assert not waiting.done()
    world.drain.hurry()
    await waiting
    world.drain.begin(8.0)
    waiting = asyncio.ensure_future(world.drain.wait())
    await world.pass_time(8.0)
    await waiting


async def test_a_stop_does_not_wait_where_there_is_nowhere_to_go(house) -> None:
    world = await leaving(house, 3, beside=False)
    world.drain.begin(60.0, is_stopping=True)
    await world.drain.wait()


async def test_a_stop_ends_its_wait_when_the_others_leave_too(house) -> None:
    world = await leaving(house, 3)
    world.drain.begin(60.0, is_stopping=True)
    waiting = asyncio.ensure_future(world.drain.wait())
    await world.pass_time(2.0)
    assert not waiting.done()
    await house.registry.register(NodeInfo(ELSEWHERE.node_id, "h", 7300, None, "", is_draining=True))
    await world.pass_time(0.25)
    await waiting


async def test_a_drain_with_nowhere_to_go_keeps_its_devices_until_its_last_part(house) -> None:
    world = await leaving(house, 4, beside=False)
    world.drain.begin(20.0)
    await world.pass_time(16.0)
    assert (world.told, len(house.node.hub)) == (0, 4)
    await world.pass_time(4.0)
    assert len(house.node.hub) == 0


async def test_a_node_that_stops_is_not_brought_back(house) -> None:
    world = await leaving(house, 1)
    world.drain.begin(60.0, is_stopping=True)
    world.drain.end()
    assert world.drain.is_on
    assert world.drain.state().state == "stopping"
    assert house.node.info().is_draining


async def test_the_time_left_follows_the_rate_and_never_passes_the_end(house) -> None:
    world = await leaving(house)
    world.drain.begin(60.0)
    assert world.drain.state().eta_s == 60.0
    await world.pass_time(5.0)
    assert world.drain.state().eta_s == 55.0
    await go(world.peers[: COUNT // 2], house, COUNT // 2)
    await world.pass_time(2.5)
    state = world.drain.state()
    assert (state.left, state.sessions) == (COUNT // 2, COUNT)
    assert 0 < state.eta_s <= 5.0


@pytest.mark.parametrize(("asked", "told"), [(10, 10), (0, 0), (-3, 0), (1_000, COUNT)])
async def test_as_many_as_asked_are_moved_and_the_others_stay(house, asked: int, told: int) -> None:
    world = await leaving(house)
    assert world.drain.move(asked, 10.0) == told
    await world.pass_time(30.0)
    assert len(house.node.hub) == COUNT
    assert not house.node.info().is_draining
    packets = [packet for peer in world.peers for packet in await heard(peer)]
    assert packets == [Move(2_000, "rebalanced", "")] * told


async def test_asking_again_moves_no_more_while_those_told_are_still_here(house) -> None:
    world = await leaving(house)
    assert world.drain.move(10, 10.0) == 10
    await world.pass_time(10.0)
    assert world.drain.move(10, 10.0) == 0
    assert world.drain.move(12, 10.0) == 2
    await world.pass_time(80.0)
    assert world.drain.state() is None
    assert world.drain.move(10, 10.0) == 10


async def test_who_was_told_and_went_does_not_count_any_more(house) -> None:
    world = await leaving(house, 6)
    assert world.drain.move(6, 10.0) == 6
    await world.pass_time(7.0)
    await go(world.peers[:4], house, 2)
    state = world.drain.state()
    assert (state.state, state.sessions, state.left) == ("moving", 6, 2)
    await go(world.peers[4:], house, 0)
    assert world.drain.state() is None


async def test_a_drain_wins_over_moving_some(house) -> None:
    world = await leaving(house, 6)
    world.drain.move(2, 10.0)
    world.drain.begin(10.0)
    assert world.drain.move(3, 10.0) == 0
    await world.pass_time(10.0)
    assert len(house.node.hub) == 0
