"""Uplink to Kafka from one process: records a second of 128 bytes, each told after its delivery report.

    python bench/kafka_uplink.py
    python bench/kafka_uplink.py --seconds 10 --repeats 5 --rate 20000

First unpaced, with ``--in-flight`` records under way at a time (what it can take); then paced at ``--rate`` (what a
SENT waits); then a member of a group reads the topic. Broker, producer and reader share the machine.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from longwire.adapters.kafka import KafkaProducer, KafkaSettings, KafkaUplink
from longwire.adapters.kafka.group import GroupMember
from longwire.adapters.kafka.records import record_of
from longwire.ids import new_message_id
from longwire.model import UplinkRecord
from longwire.reasons import Status
from longwire.testing.engines import Kafka

PAYLOAD = bytes(128)
DEVICES = 10_000
TICK_S = 0.005


class Load:
    """Appends records of many devices, and keeps what each waited."""

    def __init__(self, uplink: KafkaUplink) -> None:
        self.uplink = uplink
        self.waited_ms: list[float] = []
        self.refused = 0
        self.under_way = 0
        self.sent = 0

    def append(self) -> None:
        device_no = 1 + self.sent % DEVICES
        self.sent += 1
        self.under_way += 1
        record = UplinkRecord(device_no, f"device-{device_no}", new_message_id(), "order", PAYLOAD, 1_764_000_000_000)
        began = time.perf_counter()

        def told(_record: UplinkRecord, status: Status) -> None:
            self.under_way -= 1
            self.waited_ms.append((time.perf_counter() - began) * 1000)
            self.refused += status is not Status.OK

        self.uplink.append(record, told)

    async def drained(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if not self.under_way:
                return


async def unpaced(load: Load, seconds: float, in_flight: int) -> float:
    """Records a second."""
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        for _ in range(in_flight - load.under_way):
            load.append()
        await asyncio.sleep(0.001)
    await load.drained()
    return load.sent / (time.perf_counter() - began)


async def paced(load: Load, seconds: float, rate: float) -> float:
    """The share of the asked rate that was sent."""
    began = time.perf_counter()
    while (gone := time.perf_counter() - began) < seconds:
        for _ in range(int(gone * rate) - load.sent):
            load.append()
        await asyncio.sleep(TICK_S)
    await load.drained()
    return load.sent / (seconds * rate)


async def read_all(settings: KafkaSettings, count: int, group: str) -> float:
    """Records a second, from the first on."""
    member = GroupMember(settings, group, settings.uplink_topic)
    member.start()
    got = len(await member.take(1))
    began = time.perf_counter()
    while got < count:
        taken = await member.take(256)
        for one in taken:
            record_of(one.message, one.number)
        got += len(taken)
    rate = got / (time.perf_counter() - began)
    await member.commit(taken[-1].number)
    await member.stop()
    return rate


async def measure(servers: str, options: argparse.Namespace) -> None:
    settings = KafkaSettings(servers, replication=1)
    producer = KafkaProducer(settings)
    await producer.start()
    uplink = KafkaUplink(producer)
    total = 0
    for _ in range(options.repeats):
        free, even = Load(uplink), Load(uplink)
        rate = await unpaced(free, options.seconds, options.in_flight)
        share = await paced(even, options.seconds, options.rate)
        total += free.sent + even.sent
        slowest = sorted(even.waited_ms)
        print(
            f"unpaced {rate:8,.0f}/s   at {options.rate:,}/s: {share:.1%} sent, "
            f"p50 {statistics.median(slowest):.1f} ms, p99 {slowest[-len(slowest) // 100]:.1f} ms"
            f"   refused {free.refused + even.refused}",
            flush=True,
        )
    await producer.stop()
    for repeat in range(options.repeats):
        print(f"read    {await read_all(settings, min(total, 300_000), f'bench-{repeat}'):8,.0f}/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rate", type=int, default=20_000)
    parser.add_argument("--in-flight", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Kafka(Path(folder)) as kafka:
        uvloop.run(measure(kafka.servers, options))


if __name__ == "__main__":
    main()
