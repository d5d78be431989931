"""docs/uplink-log.md: what it says of a message, and its example, which runs here as it stands there."""

import asyncio
import re
from pathlib import Path

from confluent_kafka import Consumer
from kafka_words import append, record

from longwire.adapters.kafka import KafkaUplink
from longwire.reasons import Status

PAGE = Path(__file__).parents[3] / "docs" / "uplink-log.md"


async def test_the_example_consumer_takes_every_message_once(producer, settings) -> None:
    text = PAGE.read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    example = example.replace("longwire.uplink", settings.uplink_topic).replace(
        '"billing"', f'"{settings.topic_prefix}"'
    )
    example = example.replace("consumer.poll(10.0)", "len(handled) < 3 and consumer.poll(10.0)")
    handled: list[tuple[str, str, bytes]] = []
    repeated = record(1, 7)
    again = record(1, 7, repeated.message_id)
    assert await append(KafkaUplink(producer), repeated, again, record(2, 7), record(3, 8)) == [Status.OK] * 4

    def run() -> None:
        names = {"servers": settings.servers, "handle": lambda *told: handled.append(told), "handled": handled}
        exec(example, names)
        names["consumer"].close()  # type: ignore[attr-defined]

    await asyncio.to_thread(run)
    assert sorted(handled) == [("d-7", "kind", b"1"), ("d-7", "kind", b"2"), ("d-8", "kind", b"3")]


async def test_every_header_is_as_the_page_says(producer, settings) -> None:
    sent = record(5, 7)
    await append(KafkaUplink(producer), sent)
    consumer = Consumer(
        {"bootstrap.servers": settings.servers, "group.id": settings.topic_prefix, "auto.offset.reset": "earliest"}
    )
    consumer.subscribe([settings.uplink_topic])
    message = await asyncio.to_thread(consumer.poll, 20.0)
    consumer.close()
    assert (message.key(), message.value()) == (b"d-7", b"5")
    told = {name: value.decode() for name, value in message.headers()}
    trace = (b"t" * 24).hex()
    assert told == {
        "message_id": sent.message_id.hex(),
        "kind": "kind",
        "device_no": "7",
        "sent_at_ms": str(sent.sent_at_ms),
        "traceparent": f"00-{trace[:32]}-{trace[32:]}-00",
    }
    section = PAGE.read_text().partition("## A message of")[2].partition("## What the sink does")[0]
    named = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert set(told) | {"replay"} == set(named)
