"""Members of a group: partitions come and go, positions are kept, and Kafka may be away meanwhile."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from kafka_words import HANG_GUARD_S, append, record, until

from longwire.adapters.kafka import KafkaProducer, KafkaSettings, KafkaUplink, group
from longwire.adapters.kafka.group import GroupMember, Taken
from longwire.errors import StoreUnavailable
from longwire.reasons import Status


@pytest.fixture
async def members(settings: KafkaSettings) -> AsyncIterator[object]:
    """Makes members of one group."""
    made: list[GroupMember] = []

    def make() -> GroupMember:
        member = GroupMember(settings, "readers", settings.uplink_topic)
        member.start()
        made.append(member)
        return member

    yield make
    for member in made:
        await member.stop()


async def take(member: GroupMember, count: int) -> list[Taken]:
    got: list[Taken] = []
    async with asyncio.timeout(HANG_GUARD_S):
        while len(got) < count:
            got += await member.take(count - len(got))
    return got


def payloads(taken: list[Taken]) -> list[int]:
    return sorted(int(one.message.value() or b"") for one in taken)


async def fill(producer: KafkaProducer, count: int, devices: int = 30) -> None:
    """Messages 0, 1, … over all partitions."""
    sent = [record(n, 1 + n % devices) for n in range(count)]
    assert set(await append(KafkaUplink(producer), *sent)) == {Status.OK}


async def share(first: GroupMember, second: GroupMember) -> list[Taken]:
    """Waits until the second has partitions of the first; what it took by then."""
    got = [*await take(second, 1)]
    await until(lambda: bool(first._lost))
    return got


async def test_numbers_rise_and_positions_name_the_place_in_the_topic(producer, members) -> None:
    await fill(producer, 60)
    taken = await take(members(), 60)
    assert [one.number for one in taken] == list(range(1, 61))
    places = {(one.position >> 48, one.position & (1 << 48) - 1) for one in taken}
    assert places == {(one.message.partition(), one.message.offset()) for one in taken}
    assert {partition for partition, _ in places} == {0, 1, 2}


async def test_a_new_member_goes_on_where_the_last_has_committed_in_every_partition(producer, members) -> None:
    await fill(producer, 60)
    first = members()
    taken = await take(first, 60)
    await first.commit(taken[24].number)
    await first.commit(taken[10].number)  # a position never goes back
    await first.stop()
    assert payloads(await take(members(), 35)) == payloads(taken[25:])


async def test_a_second_member_takes_partitions_over_and_the_first_knows_what_it_lost(producer, members) -> None:
    await fill(producer, 60)
    first = members()
    taken = await take(first, 60)
    second = members()
    got = await share(first, second)
    lost = [one for one in taken if not first.holds(one.number)]
    kept = [one for one in taken if first.holds(one.number)]
    assert lost
    assert kept
    assert {one.message.partition() for one in lost}.isdisjoint(one.message.partition() for one in kept)
    got += await take(second, len(lost) - len(got))
    assert payloads(got) == payloads(lost)
    # What the first says it has done of them is not believed any more; what the second says is.
    await first.commit(taken[-1].number)
    await second.stop()
    third = members()
    assert payloads(await take(third, len(lost))) == payloads(lost)


async def test_a_member_that_leaves_is_followed_by_the_others(producer, members) -> None:
    first, second = members(), members()
    await fill(producer, 60)
    got = [first.take(60), second.take(60)]
    done = [one for part in await asyncio.gather(*got) for one in part]
    await second.stop()
    await fill(producer, 60)
    seen = set(payloads(done))
    async with asyncio.timeout(HANG_GUARD_S):
        count = 0
        while count < 60 or seen != set(range(60)):
            part = await first.take(60)
            count += len(part)
            seen |= set(payloads(part))


_PROGRAM = """
import asyncio, sys
from longwire.adapters.kafka import KafkaSettings
from longwire.adapters.kafka.group import GroupMember

async def main():
    settings = KafkaSettings(sys.argv[1], topic_prefix=sys.argv[2], session_timeout_s=2)
    member = GroupMember(settings, "readers", settings.uplink_topic)
    member.start()
    got = 0
    while got < 60:
        got += len(await member.take(60))
    print("read", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_member_that_is_killed_is_followed_when_its_session_has_run_out(producer, settings, members) -> None:
    await fill(producer, 60)
    arguments = [sys.executable, "-c", _PROGRAM, settings.servers, settings.topic_prefix]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:  # noqa: ASYNC220
        try:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"read\n"
        finally:
            process.send_signal(signal.SIGKILL)
    assert payloads(await take(members(), 60)) == list(range(60))


async def test_a_reader_that_takes_nothing_stays_in_the_group_and_holds_little(producer, members, monkeypatch) -> None:
    monkeypatch.setattr(group, "_FULL", 64)
    monkeypatch.setattr(group, "_BATCH", 16)
    monkeypatch.setattr(group, "_PAUSE_AFTER_S", 0.2)
    await fill(producer, 2_000)
    member = members()
    await until(lambda: len(member._waiting) >= 64)
    await asyncio.sleep(1.0)  # of the thread's own time: it pauses its partitions and goes on polling
    assert len(member._waiting) < 128
    assert payloads(await take(member, 2_000)) == list(range(2_000))


async def test_a_commit_that_kafka_does_not_answer_is_told_and_works_again_later(own_kafka, monkeypatch) -> None:
    monkeypatch.setattr(group, "_COMMIT_WITHIN_S", 0.5)
    settings = KafkaSettings(own_kafka.servers, topic_prefix="frozen", replication=1, partitions=3)
    producer = KafkaProducer(settings)
    await producer.start()
    await fill(producer, 20)
    member = GroupMember(settings, "readers", settings.uplink_topic)
    member.start()
    taken = await take(member, 20)
    own_kafka.freeze()
    with pytest.raises(StoreUnavailable, match="within"):
        await member.commit(taken[-1].number)
    own_kafka.thaw()
    async with asyncio.timeout(HANG_GUARD_S):
        while True:
            with contextlib.suppress(StoreUnavailable):
                await member.commit(taken[-1].number)
                break
    reading = asyncio.create_task(member.take(10))
    own_kafka.kill()
    await asyncio.to_thread(own_kafka.restart)
    await until(lambda: not producer.is_away)
    while await append(KafkaUplink(producer), record(99)) != [Status.OK]:
        await asyncio.sleep(0.1)
    async with asyncio.timeout(HANG_GUARD_S):
        assert payloads(await reading) == [99]
    await member.stop()
    await producer.stop()


async def test_a_stop_while_kafka_is_frozen_comes_to_an_end(own_kafka) -> None:
    settings = KafkaSettings(own_kafka.servers, topic_prefix="stopping", replication=1, partitions=3)
    producer = KafkaProducer(settings)
    await producer.start()
    await fill(producer, 20)
    member = GroupMember(settings, "readers", settings.uplink_topic)
    member.start()
    await take(member, 20)
    own_kafka.freeze()
    try:
        async with asyncio.timeout(20):
            await member.stop()
            await producer.stop(0.1)
    finally:
        own_kafka.thaw()


async def test_whoever_waits_is_told_of_the_stop(members, producer) -> None:
    member = members()
    waiting = asyncio.create_task(member.take(1))
    await asyncio.sleep(0)
    await member.stop()
    with pytest.raises(StoreUnavailable):
        await waiting
    with pytest.raises(StoreUnavailable):
        await member.take(1)
