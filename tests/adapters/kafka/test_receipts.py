"""Receipts on their way through Kafka: the form of a message, and a sink whose store will not take them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka_words import until
from pyroaring import BitMap

from longwire.adapters.kafka import KafkaProducer, KafkaReceipts, KafkaSettings, ReceiptsConsumer, receipts
from longwire.adapters.kafka.receipts import receipts_of, value_of
from longwire.histogram import Histogram
from longwire.ports.receipts import ReceiptsCallback
from longwire.push_model import SegmentReceipts
from longwire.reasons import Status
from longwire.testing.engines import free_ports


def acked(push_no: int, *devices: int) -> SegmentReceipts:
    latency = Histogram()
    for _ in devices:
        latency.add(7)
    return SegmentReceipts(push_no, devices[0] >> 16, BitMap(devices), BitMap(), latency)


class Store:
    """Takes receipts as a store does, and refuses them while ``is_away``."""

    def __init__(self) -> None:
        self.is_away = False
        self.refused = 0
        self.calls: list[list[tuple[int, list[int]]]] = []

    def merge(self, told: Sequence[SegmentReceipts], done: ReceiptsCallback) -> None:
        if self.is_away:
            self.refused += 1
            done(told, Status.NOT_DURABLE)
            return
        self.calls.append([(one.push_no, list(one.acked)) for one in told])
        done(told, Status.OK)

    @property
    def seen(self) -> set[int]:
        return {device for call in self.calls for _, devices in call for device in devices}


@contextlib.asynccontextmanager
async def merging(settings: KafkaSettings, store: Store) -> AsyncIterator[ReceiptsConsumer]:
    consumer = ReceiptsConsumer(settings, store.merge)
    task = asyncio.create_task(consumer.run())
    yield consumer
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def tell(producer: KafkaProducer, *told: SegmentReceipts) -> Status:
    answers: list[Status] = []
    KafkaReceipts(producer).append(told, lambda _receipts, status: answers.append(status))
    await until(lambda: bool(answers))
    assert len(answers) == 1
    return answers[0]


DEVICES = st.sets(st.integers(0, 65_535), max_size=50)


@given(st.integers(1, 1 << 60), st.integers(0, 60_000), DEVICES, DEVICES, st.lists(st.floats(0, 1e6), max_size=20))
def test_a_message_holds_all_that_a_node_tells(push_no, segment, acks, writes, times) -> None:
    latency = Histogram()
    for time in times:
        latency.add(time)
    places = (BitMap((segment << 16) + low for low in some) for some in (acks, writes))
    sent = SegmentReceipts(push_no, segment, *places, latency)
    got = receipts_of(value_of(sent))
    assert (got.push_no, got.segment, got.acked, got.written) == (push_no, segment, sent.acked, sent.written)
    assert (got.latency.counts, got.latency.total) == (latency.counts, latency.total)


async def test_what_was_told_before_a_sink_was_there_is_merged_once_it_is(producer, settings) -> None:
    assert await tell(producer, acked(1, 3, 4), acked(1, 65_536)) is Status.OK
    store = Store()
    async with merging(settings, store) as consumer:
        await until(lambda: store.seen == {3, 4, 65_536})
        await until(lambda: sum(consumer._member._committed.values()) == sum(map(len, store.calls)))
    async with merging(settings, store):
        assert await tell(producer, acked(2, 9)) is Status.OK
        await until(lambda: 9 in store.seen)
    assert sum(len(call) for call in store.calls) == 3  # nothing came twice


async def test_what_the_store_does_not_take_is_merged_when_it_does(producer, settings, monkeypatch) -> None:
    monkeypatch.setattr(receipts, "_RETRY_S", 0.05)
    store = Store()
    store.is_away = True
    async with merging(settings, store):
        await tell(producer, acked(1, 3))
        await until(lambda: store.refused > 1)
        store.is_away = False
        await until(lambda: store.seen == {3})


async def test_messages_that_are_no_receipts_are_skipped_and_counted(producer, settings, caplog) -> None:
    topic = settings.receipts_topic
    elsewhere = SegmentReceipts(1, 5, BitMap([1]), BitMap(), Histogram())
    cut = msgspec.msgpack.encode({"push_no": 1, "segment": 0, "acked": b"", "written": b""})
    for value in (b"", b"hello", value_of(elsewhere), cut):
        await producer.put(topic, b"1:0", value, [])
    store = Store()
    async with merging(settings, store) as consumer:
        await tell(producer, acked(1, 3))
        await until(lambda: store.seen == {3})
        assert consumer.malformed == 4
    assert caplog.text.count("is no receipts and is skipped") == 1


async def test_while_kafka_is_away_a_call_is_refused_once_and_whole(monkeypatch) -> None:
    monkeypatch.setattr("longwire.adapters.kafka.producer._START_WITHIN_S", 0.3)
    (port,) = free_ports(1)
    producer = KafkaProducer(KafkaSettings(f"127.0.0.1:{port}"))
    await producer.start()
    await until(lambda: producer.is_away)
    assert await tell(producer, acked(1, 3), acked(1, 65_536)) is Status.NOT_DURABLE
    await producer.stop()


@pytest.mark.parametrize("blob", [b"\x81", b"\xff" * 40])
def test_a_value_that_is_no_msgpack_is_refused(blob) -> None:
    with pytest.raises(ValueError):
        receipts_of(blob)
