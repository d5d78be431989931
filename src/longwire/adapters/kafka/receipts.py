"""Receipts of pushes through Kafka: nodes put them in, the sink merges them into the store.

    node ─► append ─► a message a segment ─► longwire.receipts ─► ReceiptsConsumer ─► merge ─► commit

A segment of a push has one key, so one sink merges it, and gathers what all nodes tell of it: four merges a second.
Merging twice changes nothing: bitmaps are joined, and the latencies of receipts that bring no new acknowledgement are
dropped by the store (push_segments.py).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

import msgspec
from pyroaring import BitMap

from longwire.adapters.kafka.group import GroupMember, Taken
from longwire.adapters.kafka.producer import KafkaProducer
from longwire.adapters.kafka.settings import KafkaSettings
from longwire.errors import StoreUnavailable
from longwire.histogram import BUCKETS, Histogram
from longwire.ports.receipts import ReceiptsCallback
from longwire.push_model import SegmentReceipts
from longwire.reasons import Status

log = logging.getLogger(__name__)

Merge = Callable[[Sequence[SegmentReceipts], ReceiptsCallback], None]

_GROUP = "receipts"
_AT_ONCE = 1_000
_MERGE_EVERY_S = 0.25
_RETRY_S = 1.0


class _Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message's value, msgpack; bitmaps as RoaringFormatSpec has them, latency as Histogram.dump."""

    push_no: int
    segment: int
    acked: bytes
    written: bytes
    latency: bytes | None = None


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Value).decode


def value_of(receipts: SegmentReceipts) -> bytes:
    return _encode(
        _Value(
            receipts.push_no,
            receipts.segment,
            receipts.acked.serialize(),
            receipts.written.serialize(),
            receipts.latency.dump(),
        )
    )


def receipts_of(value: bytes) -> SegmentReceipts:
    """Raises ValueError for what is none."""
    told = _decode(value)
    if told.latency is not None and len(told.latency) != BUCKETS * 4:
        raise ValueError(f"latencies of {len(told.latency)} bytes")
    try:
        acked, written = BitMap.deserialize(told.acked), BitMap.deserialize(told.written)
    except IndexError as error:
        raise ValueError(f"no bitmap: {error}") from None
    for devices in (acked, written):
        if devices and (devices.min() >> 16 != told.segment or devices.max() >> 16 != told.segment):
            raise ValueError(f"devices outside of segment {told.segment}")
    return SegmentReceipts(told.push_no, told.segment, acked, written, Histogram.load(told.latency))


class _Call:
    """One ``append``: told once, when each of its receipts is."""

    __slots__ = ("done", "is_durable", "left", "receipts")

    def __init__(self, receipts: Sequence[SegmentReceipts], done: ReceiptsCallback) -> None:
        self.receipts = receipts
        self.done = done
        self.left = len(receipts)
        self.is_durable = True

    def told(self, is_durable: bool) -> None:
        self.left -= 1
        self.is_durable = self.is_durable and is_durable
        if not self.left:
            self.done(self.receipts, Status.OK if self.is_durable else Status.NOT_DURABLE)


class KafkaReceipts:
    """ports.receipts.ReceiptLog. Of a call of which one receipt was refused, all come again."""

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer

    def append(self, receipts: Sequence[SegmentReceipts], done: ReceiptsCallback) -> None:
        call = _Call(receipts, done)
        topic = self._producer.settings.receipts_topic
        for one in receipts:
            self._producer.send(topic, b"%d:%d" % (one.push_no, one.segment), value_of(one), [], call.told)


class ReceiptsConsumer:
    """One sink's share of the receipts; ``merge`` is the store's (SqlPushes.merge)."""

    def __init__(self, settings: KafkaSettings, merge: Merge) -> None:
        self.malformed = 0
        """Messages of the topic that are no receipts: skipped."""
        self.merged = 0
        self._topic = settings.receipts_topic
        self._member = GroupMember(settings, _GROUP, settings.receipts_topic)
        self._merge = merge

    async def run(self) -> None:
        """Merges until it is cancelled; then others take over what was not merged. It runs once."""
        self._member.start()
        try:
            while True:
                began = time.monotonic()
                await self._merge_some()
                await asyncio.sleep(max(0.0, began + _MERGE_EVERY_S - time.monotonic()))
        finally:
            await self._member.stop()

    async def _merge_some(self) -> None:
        taken = await self._member.take(_AT_ONCE)
        receipts = self._receipts_of(taken)
        while receipts:
            if await self._merged(receipts):
                break
            await asyncio.sleep(_RETRY_S)
        self.merged += len(receipts)
        try:
            await self._member.commit(taken[-1].number)
        except StoreUnavailable as error:
            log.warning("merged receipts will be merged once more: %s", error)

    async def _merged(self, receipts: Sequence[SegmentReceipts]) -> bool:
        told: asyncio.Future[Status] = asyncio.get_running_loop().create_future()
        self._merge(receipts, lambda _receipts, status: None if told.done() else told.set_result(status))
        return await told is Status.OK

    def _receipts_of(self, taken: Sequence[Taken]) -> list[SegmentReceipts]:
        receipts: list[SegmentReceipts] = []
        for one in taken:
            try:
                receipts.append(receipts_of(one.message.value() or b""))
            except ValueError as error:
                self.malformed += 1
                if self.malformed == 1:
                    log.warning("a message of %s is no receipts and is skipped: %s", self._topic, error)
        return receipts
