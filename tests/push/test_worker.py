"""The worker over nodes and work that are only lists, in time by hand."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from push_fakes import MemoryWork, Nodes
from pyroaring import BitMap

from longwire.errors import StoreUnavailable
from longwire.push.worker import Worker, WorkerSettings
from longwire.push_model import Priority
from longwire.testing import settle
from longwire.traces import Marks, Traces

SETTINGS = WorkerSettings(link_timeout_s=0.05, stop_within_s=0.05)


def worker_of(work: MemoryWork, nodes: Nodes, settings: WorkerSettings = SETTINGS) -> Worker:
    return Worker("w", work, nodes.routes, nodes.registry, nodes, work.clock, settings, work.clock.sleep)


@asynccontextmanager
async def running(work: MemoryWork, nodes: Nodes, settings: WorkerSettings = SETTINGS) -> AsyncIterator[Worker]:
    worker = worker_of(work, nodes, settings)
    task = asyncio.create_task(worker.run())
    await settle()
    try:
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_each_node_writes_those_who_are_there_and_the_absent_are_handled(work, nodes) -> None:
    await nodes.add("n1", *range(1, 11))
    await nodes.add("n2", *range(11, 15), 99)
    part = work.add(BitMap(range(1, 21)))
    async with running(work, nodes):
        assert {(w.node_id, tuple(w.order.receivers)) for w in nodes.writes} == {
            ("n1", tuple(range(1, 11))),
            ("n2", (11, 12, 13, 14)),
        }
    assert part.is_done
    assert part.written == BitMap(range(1, 15))
    assert (part.online, part.handled, part.cursor) == (14, 20, 20)
    (order, _) = (write.order for write in nodes.writes)
    assert (order.lease_no, order.ttl_left_ms, order.priority) == (1, 60_000, Priority.NORMAL)


async def test_routes_of_a_node_that_the_registry_does_not_list_are_nobodys(work, nodes) -> None:
    await nodes.add("n1", 1)
    await nodes.add("n2", 2)
    await nodes.registry.leave("n2")
    part = work.add(BitMap([1, 2]))
    async with running(work, nodes):
        assert part.is_done
    assert part.written == BitMap([1])


async def test_nobody_online_is_done_without_a_write(work, nodes) -> None:
    part = work.add(BitMap(range(100)))
    async with running(work, nodes):
        assert part.is_done
    assert nodes.writes == []
    assert part.handled == 100


async def test_what_has_expired_is_done_without_a_write(work, nodes, clock) -> None:
    await nodes.add("n1", *range(1, 11))
    part = work.add(BitMap(range(1, 11)), ttl_s=5)
    clock.advance(6)
    async with running(work, nodes):
        assert part.is_done
    assert nodes.writes == []


async def test_the_time_that_is_left_is_told(work, nodes, clock) -> None:
    await nodes.add("n1", 1)
    work.add(BitMap([1]), ttl_s=5)
    clock.advance(4)
    async with running(work, nodes):
        pass
    assert [write.order.ttl_left_ms for write in nodes.writes] == [1_000]


async def test_more_segments_than_are_written_at_once_are_all_done(work, nodes) -> None:
    for segment in range(20):
        await nodes.add("n1", segment << 16)
        work.add(BitMap([segment << 16]), segment=segment)
    async with running(work, nodes):
        await settle(500)
    assert all(part.is_done for part in work.parts)
    assert len(nodes.writes) == 20


# Pacing


async def test_a_paced_push_hands_out_no_more_than_its_rate_and_the_absent_cost_nothing(work, nodes, clock) -> None:
    online = range(0, 20_000, 2)
    await nodes.add("n1", *online)
    part = work.add(BitMap(range(20_000)), rate=1_000)
    began_ms = clock.now_ms()
    async with running(work, nodes):
        await clock.run_for(12)
    assert part.is_done
    assert part.written == BitMap(online)
    total = 0
    for write in nodes.writes:
        total += len(write.order.receivers)
        assert total <= (write.at_ms - began_ms) + 250
    assert 9_500 <= nodes.writes[-1].at_ms - began_ms <= 10_000
    assert part.handled == 20_000
    assert part.online == 10_000


async def test_the_segments_of_a_paced_push_share_its_rate(work, nodes, clock) -> None:
    for segment in range(4):
        devices = range(segment << 16, (segment << 16) + 100)
        await nodes.add("n1", *devices)
        work.add(BitMap(devices), segment=segment, rate=100)
    began_ms = clock.now_ms()
    async with running(work, nodes):
        await clock.run_for(6)
    assert all(part.is_done for part in work.parts)
    total = 0
    for write in nodes.writes:
        total += len(write.order.receivers)
        assert total <= (write.at_ms - began_ms) / 10 + 50
    assert nodes.writes[-1].at_ms - began_ms >= 3_500


async def test_a_rate_may_be_changed_while_it_runs(work, nodes, clock) -> None:
    await nodes.add("n1", *range(10_000))
    part = work.add(BitMap(range(10_000)), rate=100)
    async with running(work, nodes):
        await clock.run_for(4)
        slow = len(part.written)
        part.rate = 2_000
        await clock.run_for(1)
        fast = len(part.written) - slow
        part.rate = None
        await clock.run_for(0.3)
    assert 375 <= slow <= 425
    assert 1_500 <= fast <= 2_100
    assert part.is_done


async def test_a_pause_lets_at_most_a_grain_go_and_resuming_does_the_rest(work, nodes, clock) -> None:
    await nodes.add("n1", *range(1_000))
    part = work.add(BitMap(range(1_000)), rate=100)
    async with running(work, nodes):
        await clock.run_for(2)
        part.is_paused = True
        at_pause = len(nodes.written)
        await clock.run_for(10)
        assert len(nodes.written) - at_pause <= 25
        part.is_paused = False
        await clock.run_for(10)
    assert part.is_done
    assert sum(len(write.order.receivers) for write in nodes.writes) == 1_000


async def test_paced_pushes_hold_nobody_up_however_many_there_are(work, nodes, clock) -> None:
    await nodes.add("n1", *range(1_000))
    for push_no in range(1, 9):
        work.add(BitMap(range(100)), push_no=push_no, rate=1)
    settings = WorkerSettings(segments=2, paced=3)
    async with running(work, nodes, settings):
        await clock.run_for(1)
        quick = work.add(BitMap(range(1_000)), push_no=99)
        await clock.run_for(2)
        assert quick.is_done
        assert sum(part.is_leased for part in work.parts) == 3
    assert all(given.error == "" for given in work.given_back)


# Leases


async def test_who_lost_the_lease_stops(work, nodes, clock) -> None:
    await nodes.add("n1", *range(1_000))
    part = work.add(BitMap(range(1_000)), rate=100)
    async with running(work, nodes, WorkerSettings(poll_s=1_000)):
        await clock.run_for(2)
        part.lease_no += 1
        part.free_at_ms = clock.now_ms() + 900_000
        await clock.run_for(0.3)
        written = len(nodes.written)
        await clock.run_for(10)
        assert len(nodes.written) == written
    assert not part.is_done
    assert work.given_back == []


async def test_a_lease_goes_on_while_a_slow_push_runs(work, nodes, clock) -> None:
    await nodes.add("n1", *range(200))
    part = work.add(BitMap(range(200)), rate=2)
    async with running(work, nodes), running(work, nodes):
        await clock.run_for(100)
    assert part.is_done
    assert part.lease_no == 1


async def test_what_a_dead_worker_left_is_done_again_from_where_it_was(work, nodes, clock) -> None:
    await nodes.add("n1", *range(1_000))
    part = work.add(BitMap(range(1_000)), rate=100)
    async with running(work, nodes):
        await clock.run_for(2)
    left = part.cursor
    assert 0 < left < 999
    assert part.is_leased
    async with running(work, nodes):
        await clock.run_for(29)
        assert part.cursor == left
        await clock.run_for(20)
    assert part.is_done
    assert part.lease_no == 2
    assert sum(len(write.order.receivers) for write in nodes.writes) == 1_000


async def test_nobody_is_written_to_once_a_push_has_ended_on_the_nodes(work, nodes, clock) -> None:
    await nodes.add("n1", *range(1_000))
    part = work.add(BitMap(range(1_000)), rate=100)
    async with running(work, nodes):
        await clock.run_for(5)
        half = len(nodes.written)
        await nodes.end_push(1)
        part.lease_no += 1
        part.is_done = True
        await clock.run_for(60)
    assert len(nodes.written) == half
    assert 450 <= half <= 550


async def test_a_refusal_of_a_held_lease_gives_it_back_without_a_failure(work, nodes, clock) -> None:
    await nodes.add("n1", *range(10))
    part = work.add(BitMap(range(10)))
    nodes.ended.add(1)
    async with running(work, nodes):
        await clock.run_for(1)
        assert [given.error for given in work.given_back] == [""]
        nodes.ended.clear()
        await clock.run_for(3)
    assert part.is_done


# Failures


async def test_one_node_that_fails_is_tried_again_later_and_later(work, nodes, clock, caplog) -> None:
    await nodes.add("n1", 1)
    await nodes.add("n2", 2)
    part = work.add(BitMap([1, 2, 3]), ttl_s=900)
    nodes.faults["n2"] = StoreUnavailable("connection refused")
    async with running(work, nodes):
        await clock.run_for(200)
        waits = [given.not_before_ms - given.at_ms for given in work.given_back]
        assert waits[:8] == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
        assert {given.error for given in work.given_back} == {"node n2: connection refused"}
        assert part.written == BitMap([1])
        assert part.handled == 0
        del nodes.faults["n2"]
        await clock.run_for(61)
    assert part.is_done
    assert part.written == BitMap([1, 2])
    assert "was not written: node n2: connection refused" in caplog.text


async def test_a_node_that_does_not_answer_is_given_up_after_its_time(work, nodes) -> None:
    await nodes.add("n1", 1)
    await nodes.add("n2", 2)
    part = work.add(BitMap([1, 2]))
    nodes.deaf.add("n2")
    async with running(work, nodes):
        await asyncio.sleep(0.1)
        await settle()
    assert part.written == BitMap([1])
    assert [given.error for given in work.given_back] == ["node n2 did not answer within 0.05 s"]


async def test_a_fault_of_ours_ends_one_segment_and_counts_as_its_failure(work, nodes, clock, caplog) -> None:
    await nodes.add("n1", 1)
    bad, good = work.add(BitMap([1])), work.add(BitMap([2]), push_no=2)
    nodes.faults["n1"] = ZeroDivisionError("oops")
    async with running(work, nodes):
        assert good.is_done
        assert [given.error for given in work.given_back] == ["internal error"]
        nodes.faults.clear()
        await clock.run_for(2)
    assert bad.is_done
    assert "oops" in caplog.text


async def test_what_the_store_did_not_take_is_told_again_while_the_lease_lasts(work, nodes, clock) -> None:
    await nodes.add("n1", *range(5))
    part = work.add(BitMap(range(5)))
    work.away_for = 3
    async with running(work, nodes):
        await clock.run_for(4)
    assert part.is_done
    assert len(nodes.writes) == 1


async def test_a_store_that_is_away_longer_than_the_lease_has_the_segment_done_again(work, nodes, clock) -> None:
    await nodes.add("n1", *range(5))
    part = work.add(BitMap(range(5)), ttl_s=900)
    work.away_for = 35
    async with running(work, nodes):
        await clock.run_for(60)
    assert part.is_done
    assert part.lease_no == 2
    assert len(nodes.writes) == 2


async def test_a_store_that_gives_no_claims_is_waited_for(work, nodes, clock, caplog) -> None:
    await nodes.add("n1", 1)
    part = work.add(BitMap([1]))
    work.is_away = True
    async with running(work, nodes):
        await clock.run_for(10)
        work.is_away = False
        await clock.run_for(2)
    assert part.is_done
    assert caplog.text.count("waits for the store") == 1


# Stopping


async def test_a_stop_lets_what_runs_end_and_claims_no_more(work, nodes, clock) -> None:
    await nodes.add("n1", *range(10))
    worker = worker_of(work, nodes)
    task = asyncio.create_task(worker.run())
    await settle()
    await worker.stop()
    work.add(BitMap(range(10)))
    await clock.run_for(5)
    assert task.done()
    assert nodes.writes == []
    await worker.stop()


async def test_a_stop_gives_back_what_does_not_end_in_time(work, nodes, clock) -> None:
    await nodes.add("n1", *range(1_000))
    paced = work.add(BitMap(range(1_000)), rate=10)
    hung = work.add(BitMap([5]), push_no=2)
    worker = worker_of(work, nodes, WorkerSettings(stop_within_s=0.05))
    task = asyncio.create_task(worker.run())
    await clock.run_for(3)
    assert hung.is_done
    nodes.deaf.add("n1")
    hung = work.add(BitMap([6]), push_no=3)
    await clock.run_for(2)
    assert hung.is_leased
    await worker.stop()
    assert task.done()
    assert not paced.is_leased
    assert not hung.is_leased
    assert {given.not_before_ms for given in work.given_back} == {0}
    nodes.deaf.clear()
    async with running(work, nodes):
        await clock.run_for(110)
    assert paced.is_done
    assert hung.is_done


async def test_higher_priority_is_claimed_first(work, nodes, clock) -> None:
    await nodes.add("n1", 1)
    for push_no, priority in enumerate([Priority.LOW, Priority.NORMAL, Priority.HIGH], 1):
        work.add(BitMap([1]), push_no=push_no).priority = priority
    async with running(work, nodes, WorkerSettings(segments=1)):
        await clock.run_for(1)
    assert [write.order.push_no for write in nodes.writes] == [3, 2, 1]


# Traces, and what is counted


async def test_a_traced_push_is_told_segment_by_segment_and_node_by_node(work, nodes, clock) -> None:
    await nodes.add("n1", 1, 2)
    await nodes.add("n2", 3)
    nodes.faults["n2"] = StoreUnavailable("connection refused")
    told = []
    traces = Traces(tells=[told.append])
    traces.set_marks(Marks(BitMap([2])))
    worker = Worker("w", work, nodes.routes, nodes.registry, nodes, clock, SETTINGS, clock.sleep, traces)
    task = asyncio.create_task(worker.run())
    work.add(BitMap(range(1, 5)))
    await settle()
    assert {(hop.name, dict(hop.facts)["to_node"], dict(hop.facts)["written"], hop.is_error) for hop in told} == {
        ("push.dispatched", "n1", 2, False),
        ("push.dispatched", "n2", 0, True),
    }
    (write,) = nodes.writes
    assert write.order.message.trace == told[0].trace, "the node goes on with the mark's context"
    assert (worker.segments, worker.failed_attempts) == (0, 1)
    del nodes.faults["n2"]
    await clock.run_for(2)
    assert (worker.segments, worker.failed_attempts) == (1, 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_push_that_nobody_marked_is_not_told(work, nodes, clock) -> None:
    await nodes.add("n1", 1)
    told = []
    traces = Traces(tells=[told.append])
    traces.set_marks(Marks(BitMap([2])))
    worker = Worker("w", work, nodes.routes, nodes.registry, nodes, clock, SETTINGS, clock.sleep, traces)
    task = asyncio.create_task(worker.run())
    part = work.add(BitMap([1]))
    await settle()
    assert (part.is_done, told, nodes.writes[0].order.message.trace) == (True, [], b"")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
