"""Short words for what the tests of Kafka's adapters say often."""

import asyncio
from collections.abc import Callable

from longwire.adapters.kafka import KafkaUplink
from longwire.ids import new_message_id
from longwire.model import UplinkRecord
from longwire.reasons import Status

HANG_GUARD_S = 40.0


def record(n: int = 0, device_no: int = 1, message_id: bytes | None = None) -> UplinkRecord:
    message_id = message_id or new_message_id()
    return UplinkRecord(device_no, f"d-{device_no}", message_id, "kind", b"%d" % n, 1_764_000_000_000 + n, b"t" * 24)


async def append(uplink: KafkaUplink, *records: UplinkRecord) -> list[Status]:
    told: dict[int, Status] = {}
    for one in records:
        uplink.append(one, lambda r, s: told.update({id(r): s}))
    assert not told  # never within the call
    await until(lambda: len(told) == len(records))
    return [told[id(one)] for one in records]


async def until(is_so: Callable[[], bool]) -> None:
    """Waits for what a real engine does in its own time."""
    async with asyncio.timeout(HANG_GUARD_S):
        while not is_so():
            await asyncio.sleep(0.01)
