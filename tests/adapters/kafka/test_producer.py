"""The producer: delivery reports, Kafka away in each of its ways, and an end that leaves nothing behind."""

import asyncio
import time
import uuid

import pytest
from confluent_kafka.admin import AdminClient
from kafka_words import append, record, until

from longwire.adapters.kafka import KafkaProducer, KafkaRefused, KafkaSettings, KafkaUplink
from longwire.reasons import Status
from longwire.testing.engines import free_ports


async def test_topics_are_made_where_they_are_missing_and_left_alone_where_they_are_not(settings, producer) -> None:
    other = KafkaProducer(KafkaSettings(settings.servers, topic_prefix=settings.topic_prefix, partitions=7))
    await other.start()
    await other.stop()
    topics = AdminClient({"bootstrap.servers": settings.servers}).list_topics(timeout=10).topics
    for name in (settings.uplink_topic, settings.dead_topic, settings.receipts_topic):
        assert len(topics[name].partitions) == 3


async def test_more_copies_than_brokers_are_refused_with_a_sentence(kafka_engine) -> None:
    settings = KafkaSettings(kafka_engine.servers, topic_prefix=uuid.uuid4().hex, replication=3)
    with pytest.raises(KafkaRefused, match=r"3 copies \(kafka_replication\)"):
        await KafkaProducer(settings).start()


async def test_an_option_that_librdkafka_does_not_know_is_refused_by_name(kafka_engine) -> None:
    settings = KafkaSettings(kafka_engine.servers, options={"sasl.pasword": "secret"})
    assert "secret" not in repr(settings)
    with pytest.raises(KafkaRefused, match=r"kafka_options.*sasl\.pasword"):
        await KafkaProducer(settings).start()


@pytest.mark.parametrize(
    "wrong", [{"servers": ""}, {"partitions": 0}, {"replication": 0}, {"topic_prefix": ""}, {"delivery_timeout_s": 0}]
)
def test_settings_that_cannot_be_are_refused(wrong) -> None:
    with pytest.raises(ValueError):
        KafkaSettings(**{"servers": "127.0.0.1:9092"} | wrong)


async def test_what_is_larger_than_a_message_may_be_is_refused_at_once(producer) -> None:
    uplink = KafkaUplink(producer)
    large = record()
    large.payload = bytes(2_000_000)
    assert await append(uplink, large, record(1)) == [Status.NOT_DURABLE, Status.OK]
    assert uplink.queued_bytes == 0


async def test_a_full_queue_refuses_and_what_was_taken_is_delivered(settings) -> None:
    producer = KafkaProducer(
        KafkaSettings(settings.servers, topic_prefix=settings.topic_prefix, replication=1, max_queued_bytes=100_000)
    )
    await producer.start()
    uplink = KafkaUplink(producer)
    sent = [record(n) for n in range(60)]
    for one in sent:
        one.payload = bytes(10_000)
    statuses = await append(uplink, *sent)
    assert 0 < statuses.count(Status.OK) < 60
    assert set(statuses) == {Status.OK, Status.NOT_DURABLE}
    assert await append(uplink, record()) == [Status.OK]
    await producer.stop()


async def test_stop_delivers_what_is_under_way_and_refuses_what_comes_after(settings) -> None:
    producer = KafkaProducer(settings)
    uplink = KafkaUplink(producer)
    assert await append(uplink, record()) == [Status.NOT_DURABLE]
    await producer.start()
    told: list[Status] = []
    for n in range(500):
        uplink.append(record(n), lambda _record, status: told.append(status))
    await producer.stop()
    assert told == [Status.OK] * 500
    assert await append(uplink, record()) == [Status.NOT_DURABLE]
    await producer.stop()


async def test_a_callback_that_fails_does_not_take_the_others_with_it(producer, caplog) -> None:
    uplink = KafkaUplink(producer)
    told: list[Status] = []

    def fail(_record: object, _status: Status) -> None:
        raise ZeroDivisionError

    uplink.append(record(), fail)
    uplink.append(record(), lambda _record, status: told.append(status))
    await until(lambda: bool(told))
    assert "ZeroDivisionError" in caplog.text


async def test_kafka_frozen_then_back(own_kafka) -> None:
    producer = KafkaProducer(KafkaSettings(own_kafka.servers, replication=1, partitions=3, delivery_timeout_s=1.5))
    await producer.start()
    uplink = KafkaUplink(producer)
    assert await append(uplink, record()) == [Status.OK]
    own_kafka.freeze()
    began = time.monotonic()
    assert await append(uplink, *(record(n) for n in range(100))) == [Status.NOT_DURABLE] * 100
    assert time.monotonic() - began < 5
    assert producer.is_away
    began = time.monotonic()
    assert await append(uplink, record()) == [Status.NOT_DURABLE]  # at once: it is known to be away
    assert time.monotonic() - began < 0.5
    own_kafka.thaw()
    await until(lambda: not producer.is_away)
    assert await append(uplink, record()) == [Status.OK]
    own_kafka.freeze()
    uplink.append(record(), lambda _record, _status: None)
    began = time.monotonic()
    await producer.stop(within_s=0.5)
    assert time.monotonic() - began < 4
    assert uplink.queued_bytes == 0
    own_kafka.thaw()


async def test_kafka_stopped_then_started_again(own_kafka, caplog) -> None:
    producer = KafkaProducer(KafkaSettings(own_kafka.servers, replication=1, partitions=3))
    await producer.start()
    uplink = KafkaUplink(producer)
    assert await append(uplink, record()) == [Status.OK]
    own_kafka.kill()
    await until(lambda: producer.is_away)
    assert await append(uplink, record()) == [Status.NOT_DURABLE]
    own_kafka.restart()
    await until(lambda: not producer.is_away)
    assert await append(uplink, record()) == [Status.OK]
    await producer.stop()
    assert "is away" in caplog.text
    assert "answers again" in caplog.text


async def test_a_start_without_kafka_goes_on_and_makes_the_topics_when_it_is_there(
    own_kafka, monkeypatch, caplog
) -> None:
    monkeypatch.setattr("longwire.adapters.kafka.producer._START_WITHIN_S", 0.5)
    own_kafka.stop()
    settings = KafkaSettings(own_kafka.servers, topic_prefix=uuid.uuid4().hex, replication=1, partitions=3)
    producer = KafkaProducer(settings)
    await producer.start()
    assert "does not answer" in caplog.text
    uplink = KafkaUplink(producer)
    await until(lambda: producer.is_away)
    assert await append(uplink, record()) == [Status.NOT_DURABLE]
    await asyncio.to_thread(own_kafka.restart)
    await until(lambda: not producer.is_away)
    assert await append(uplink, record()) == [Status.OK]
    await producer.stop()


async def test_a_server_that_is_not_there_is_known_soon(monkeypatch) -> None:
    monkeypatch.setattr("longwire.adapters.kafka.producer._START_WITHIN_S", 0.5)
    (port,) = free_ports(1)
    producer = KafkaProducer(KafkaSettings(f"127.0.0.1:{port}"))
    await producer.start()
    await until(lambda: producer.is_away)
    await producer.stop()
