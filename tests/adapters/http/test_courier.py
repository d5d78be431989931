"""The courier: what goes where, what is asked again, what falls behind; on a clock and a client that tests steer."""

from collections.abc import AsyncIterator

import pytest
from couriers import Cluster, RecordingNode, info, message
from pyroaring import BitMap

from longwire.adapters.http import LinkFailed, LinkServer
from longwire.errors import StoreUnavailable
from longwire.testing import settle


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    made = await Cluster.make("a", "b")
    yield made
    await made.courier.stop(0)


def seqs(node: RecordingNode, device_no: int) -> list[int]:
    return [seq for no, seq, _ in node.arrived if no == device_no]


async def test_messages_arrive_in_order_and_one_look_up_serves_a_turn(cluster: Cluster) -> None:
    a = cluster.nodes["a"]
    await cluster.attach(a, 1, 2)
    for seq in range(1, 101):
        cluster.courier.deliver(message(seq), seq, (1 + seq % 2,))
    assert cluster.courier.is_under_way(1)
    await settle()
    assert seqs(a, 1) == list(range(2, 101, 2))
    assert seqs(a, 2) == list(range(1, 101, 2))
    assert a.batches == [100]
    assert not cluster.courier.is_under_way(1)
    assert cluster.courier.queued_bytes == 0
    assert cluster.courier.forwarded == 100


async def test_a_message_to_many_goes_once_to_each_node(cluster: Cluster) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    await cluster.attach(a, *range(1, 501))
    await cluster.attach(b, *range(501, 1_001))
    cluster.courier.deliver(message(7), 7, range(1, 1_001))
    await settle()
    assert len(a.arrived) == len(b.arrived) == 500
    assert a.batches == b.batches == [1]


async def test_one_call_is_under_way_to_a_node_at_a_time(cluster: Cluster) -> None:
    await cluster.attach(cluster.nodes["a"], 1)
    cluster.client.is_held = True
    for seq in range(1, 4):
        cluster.courier.deliver(message(seq), seq, (1,))
        await settle()
    assert len(cluster.client.waiting) == 1


async def test_a_device_that_has_moved_is_nudged_where_it_is_and_gets_bodies_from_then_on(cluster: Cluster) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    await cluster.attach(a, 1)
    cluster.courier.deliver(message(1), 1, (1,))
    await settle()
    a.here.clear()
    await cluster.attach(b, 1)
    cluster.courier.deliver(message(2), 2, (1,))
    await settle()
    # 1 may have gone to a session that was over: only the store knows.
    assert (seqs(a, 1), seqs(b, 1), b.nudged) == ([1], [], [1])
    cluster.courier.deliver(message(3), 3, (1,))
    await settle()
    assert seqs(b, 1) == [3]
    assert cluster.courier.corrected == 1
    assert not cluster.courier.behind


async def test_a_device_that_is_away_costs_nothing_further(cluster: Cluster) -> None:
    assert cluster.courier.may_be_online(1)
    cluster.courier.deliver(message(1), 1, (1,))
    await settle()
    assert not cluster.courier.may_be_online(1)
    assert not cluster.courier.is_under_way(1)
    assert cluster.courier.queued_bytes == 0
    await cluster.clock.run_for(1.1)
    assert cluster.courier.may_be_online(1)


async def test_a_device_that_came_after_a_look_up_gets_the_next_message_at_once(cluster: Cluster) -> None:
    cluster.courier.deliver(message(1), 1, (1,))
    await settle()
    await cluster.attach(cluster.nodes["a"], 1)
    cluster.courier.deliver(message(2), 2, (1,))
    await settle()
    assert seqs(cluster.nodes["a"], 1) == [2]


async def test_a_message_that_joins_during_the_look_up_is_asked_for_again(cluster: Cluster) -> None:
    find = cluster.routes.find

    async def find_and_attach(device_nos: list[int]) -> object:
        cluster.routes.find = find  # type: ignore[method-assign]
        found = await find(device_nos)
        # Its attach came after the look-up, and before the second message's hint.
        await cluster.attach(cluster.nodes["a"], 1)
        cluster.courier.deliver(message(2), 2, (1,))
        return found

    cluster.routes.find = find_and_attach  # type: ignore[assignment, method-assign]
    cluster.courier.deliver(message(1), 1, (1,))
    await settle()
    assert seqs(cluster.nodes["a"], 1) == [2]


async def test_what_failed_is_not_sent_again_but_read_and_nothing_committed_goes_before(cluster: Cluster) -> None:
    a = cluster.nodes["a"]
    await cluster.attach(a, 1)
    cluster.client.down.add("a")
    cluster.courier.deliver(message(1), 1, (1,))
    await settle()
    assert cluster.courier.is_under_way(1)
    assert list(cluster.courier.behind) == [1]
    cluster.client.down.clear()
    cluster.courier.deliver(message(2), 2, (1,))
    await settle()
    assert a.arrived == []
    await cluster.clock.run_for(1)
    assert a.nudged == [1]
    cluster.courier.deliver(message(3), 3, (1,))
    await settle()
    assert seqs(a, 1) == [3]
    assert not cluster.courier.behind


async def test_a_message_during_a_nudge_makes_another(cluster: Cluster) -> None:
    a = cluster.nodes["a"]
    await cluster.attach(a, 1)
    cluster.client.is_held = True
    cluster.courier.nudge((1,))
    await settle()
    cluster.courier.deliver(message(1), 1, (1,))
    await settle()
    assert [posted.name for posted in cluster.client.waiting] == ["nudge"]
    cluster.client.is_held = False
    first = cluster.client.waiting.pop()
    first.answer.set_result(await cluster.client.carry_out("a", "nudge", first.body))
    await settle()
    assert a.nudged == [1, 1]
    assert a.arrived == []
    assert not cluster.courier.behind


async def test_nudges_are_tried_again_for_as_long_as_it_takes_and_not_in_a_storm(cluster: Cluster) -> None:
    await cluster.attach(cluster.nodes["a"], 1)
    cluster.client.down.add("a")
    cluster.courier.nudge((1,))
    await cluster.clock.run_for(60)
    assert 10 < len(cluster.client.posts) < 25
    cluster.client.down.clear()
    await cluster.clock.run_for(7)
    assert cluster.nodes["a"].nudged == [1]
    assert not cluster.courier.behind


async def test_a_dead_node_does_not_hold_up_the_nudges_of_others(cluster: Cluster) -> None:
    await cluster.attach(cluster.nodes["a"], 1)
    await cluster.attach(cluster.nodes["b"], 2)
    cluster.client.down.add("a")
    cluster.courier.nudge((1,))
    await cluster.clock.run_for(30)
    cluster.courier.nudge((2,))
    await settle()
    assert cluster.nodes["b"].nudged == [2]


async def test_who_is_not_where_a_nudge_looks_is_looked_for_once_more(cluster: Cluster) -> None:
    await cluster.attach(cluster.nodes["a"], 1)
    cluster.nodes["a"].here.clear()
    cluster.courier.nudge((1,))
    await settle()
    assert list(cluster.courier.behind) == [1]
    await cluster.clock.run_for(1)
    assert not cluster.courier.behind
    assert cluster.client.posts == [("a", "nudge"), ("a", "nudge")]


async def test_without_a_route_table_committed_messages_wait_and_others_are_dropped(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = cluster.nodes["a"]
    await cluster.attach(a, 1)

    async def away(_device_nos: object) -> list[None]:
        raise StoreUnavailable("away")

    told: list[tuple[int, ...]] = []
    with monkeypatch.context() as patched:
        patched.setattr(cluster.routes, "find", away)
        cluster.courier.deliver(message(1), 1, (1,))
        cluster.courier.relay(message(2), (2,), told.append)
        await cluster.clock.run_for(10)
        with pytest.raises(StoreUnavailable):
            await cluster.courier.where([1])
    assert told == [()]
    assert cluster.courier.dropped == 1
    assert list(cluster.courier.behind) == [1]
    await cluster.clock.run_for(7)
    assert a.nudged == [1]


async def test_relay_tells_who_was_written_to_on_all_nodes(cluster: Cluster) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    await cluster.attach(a, 1, 2)
    await cluster.attach(b, 3)
    a.clogged.add(2)
    told: list[tuple[int, ...]] = []
    cluster.courier.relay(message(1), (1, 2, 3, 4), told.append)
    await settle()
    assert [sorted(written) for written in told] == [[1, 3]]


async def test_a_relay_follows_a_device_that_has_moved(cluster: Cluster) -> None:
    a, b = cluster.nodes["a"], cluster.nodes["b"]
    await cluster.attach(a, 1)
    cluster.courier.relay(message(1), (1,))
    await settle()
    a.here.clear()
    await cluster.attach(b, 1)
    told: list[tuple[int, ...]] = []
    cluster.courier.relay(message(2), (1,), told.append)
    await settle()
    assert told == [(1,)]
    assert [number for _, _, number in b.arrived] == [2]


async def test_receivers_of_this_node_get_it_at_once_and_are_never_looked_up() -> None:
    local = RecordingNode("here", {1})
    cluster = await Cluster.make("a", local=local)
    told: list[tuple[int, ...]] = []
    cluster.courier.deliver(message(1), 1, (1,))
    cluster.courier.relay(message(2), (1,), told.append)
    assert local.arrived == [(1, 1, 1), (1, 0, 2)]
    assert told == [(1,)]


async def test_one_who_comes_here_while_something_is_under_way_gets_it_here() -> None:
    local = RecordingNode("here")
    cluster = await Cluster.make("a", local=local)
    await cluster.attach(cluster.nodes["a"], 1)
    cluster.client.is_held = True
    cluster.courier.deliver(message(1), 1, (1,))
    await settle()
    cluster.nodes["a"].here.clear()
    await cluster.attach(local, 1)
    assert cluster.courier.is_under_way(1)
    cluster.courier.came(1)
    cluster.client.is_held = False
    posted = cluster.client.waiting.pop()
    posted.answer.set_result(await cluster.client.carry_out("a", "forward", posted.body))
    await settle()
    assert local.nudged or local.arrived == [(1, 1, 1)]
    assert not cluster.courier.behind


async def test_one_who_came_from_where_bodies_went_reads_the_store() -> None:
    local = RecordingNode("here")
    cluster = await Cluster.make("a", local=local)
    await cluster.attach(cluster.nodes["a"], 1)
    cluster.courier.deliver(message(1), 1, (1,))
    await settle()
    await cluster.attach(local, 1)
    cluster.courier.came(1)
    assert cluster.courier.is_under_way(1)
    await settle()
    assert local.nudged == [1]


async def test_a_route_to_a_node_that_is_not_listed_yet_is_kept_for_a_nudge(cluster: Cluster) -> None:
    late = RecordingNode("late")
    await cluster.attach(late, 1)
    cluster.courier.deliver(message(1), 1, (1,))
    await settle()
    assert list(cluster.courier.behind) == [1]
    cluster.client.servers["late"] = LinkServer(late, "s" * 32)
    await cluster.registry.register(info("late"))
    await cluster.clock.run_for(1)
    assert late.nudged == [1]
    assert (await cluster.courier.where([1]))[0] is not None


async def test_a_node_that_left_while_a_call_was_under_way_leaves_nothing_behind_but_nudges(cluster: Cluster) -> None:
    await cluster.attach(cluster.nodes["a"], 1)
    cluster.client.is_held = True
    cluster.courier.deliver(message(1), 1, (1,))
    await settle()
    cluster.courier.deliver(message(2), 2, (1,))
    await cluster.registry.leave("a")
    posted = cluster.client.waiting.pop()
    posted.answer.set_exception(LinkFailed("gone", was_sent=True))
    await settle()
    assert list(cluster.courier.behind) == [1]
    assert cluster.courier.queued_bytes == 0
    assert await cluster.courier.where([1]) == [None]
    await cluster.routes.sweep("a")
    await cluster.clock.run_for(7)
    assert not cluster.courier.behind


async def test_a_message_to_many_is_spread_by_nodes_and_not_to_this_one() -> None:
    local = RecordingNode("here", {5})
    cluster = await Cluster.make("a", "b", local=local)
    await cluster.attach(cluster.nodes["a"], 1, 70_000)
    await cluster.attach(cluster.nodes["b"], 2)
    await cluster.attach(local, 5)
    for number in (1, 2):
        cluster.courier.spread(message(number), BitMap([1, 2, 3, 5, 70_000]))
    await settle()
    assert cluster.nodes["a"].spreads == [(1, [1, 70_000]), (2, [1, 70_000])]
    assert cluster.nodes["b"].spreads == [(1, [2]), (2, [2])]
    assert local.spreads == []
    assert cluster.courier.queued_bytes == 0


async def test_beyond_the_bound_committed_messages_wait_and_others_are_dropped(cluster: Cluster) -> None:
    a = cluster.nodes["a"]
    await cluster.attach(a, 1, 2)
    cluster.client.is_held = True
    payload = bytes(1 << 20)
    for seq in range(1, 60):
        cluster.courier.deliver(message(seq, payload), seq, (1,))
    assert cluster.courier.queued_bytes < 35 << 20
    assert list(cluster.courier.behind) == [1]
    cluster.courier.relay(message(60, payload), (2,))
    assert cluster.courier.dropped == 1


async def test_older_sessions_are_ended_in_one_call_and_again_where_it_fails(cluster: Cluster) -> None:
    cluster.client.down.add("a")
    told: list[int] = []
    cluster.courier.end_older("a", 1, 10, lambda: told.append(1))
    cluster.courier.end_older("a", 2, 11, lambda: told.append(2))
    await settle()
    assert told == [1, 2]  # nobody waits for a node that is not reached at once
    cluster.client.down.clear()
    await cluster.clock.run_for(0.3)
    assert cluster.nodes["a"].ended == [(1, 10), (2, 11)]
    cluster.courier.end_older("nowhere", 1, 10, lambda: told.append(3))
    await settle()
    assert told == [1, 2, 3]
    assert cluster.client.posts == [("a", "end_older"), ("a", "end_older")]


async def test_stop_empties_the_lanes_and_leaves_the_rest_in_the_inboxes(cluster: Cluster) -> None:
    await cluster.attach(cluster.nodes["a"], 1)
    await cluster.attach(cluster.nodes["b"], 2)
    cluster.courier.deliver(message(1), 1, (1,))
    await cluster.courier.stop(1.0)
    assert seqs(cluster.nodes["a"], 1) == [1]

    second = await Cluster.make("a")
    await second.attach(second.nodes["a"], 1)
    second.client.is_held = True
    told: list[tuple[int, ...]] = []
    second.courier.deliver(message(1), 1, (1,))
    second.courier.relay(message(2), (1,), told.append)
    await settle()
    await second.courier.stop(0.01)
    second.courier.deliver(message(3), 3, (1,))
    assert told == [()]
    assert second.courier.queued_bytes == 0
