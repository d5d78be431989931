"""Fills a data folder past the API, for works whose start would else take longer than they do.

    python -m bench.seed devices DATA COUNT                 registers devices that never connect, reg-0000000, …
    python -m bench.seed pushes DATA COUNT ACKED            pushes to all: sent, live for a day, and acknowledged by the
                                                            first ACKED devices; all others are still waited for

It goes through the same adapters as the server, which must not run meanwhile: the folder is one process's.
"""

import asyncio
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from pyroaring import BitMap

from longwire import bitmaps
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.audiences import SqlAudiences
from longwire.adapters.sql.push_waiting import SqlPushWaiting
from longwire.adapters.sql.pushes import SqlPushes
from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.clock import SystemClock
from longwire.histogram import Histogram
from longwire.ids import new_message_id
from longwire.ports.accounts import NewDevice
from longwire.push_model import Audience, Dispatched, NewPush, PushMessage, SegmentReceipts
from longwire.reasons import Status

DEVICES_A_COMMIT = 10_000
SEGMENTS_A_CLAIM = 64
TTL_S = 86_400


async def add_devices(database: SqliteDatabase, count: int) -> None:
    """As an import does: nobody holds a proof for them."""
    accounts, now_ms = SqlAccounts(database), SystemClock().now_ms()
    for first in range(0, count, DEVICES_A_COMMIT):
        names = [f"reg-{at:07d}" for at in range(first, min(first + DEVICES_A_COMMIT, count))]
        new = [
            NewDevice(name, hashlib.sha256(name.encode()).digest(), now_ms + 1, None, is_claimed=False)
            for name in names
        ]
        await accounts.register(new, now_ms)


async def add_pushes(database: SqliteDatabase, count: int, acked: int) -> None:
    """Each is sent to the end before the next one."""
    clock = SystemClock()
    pushes = SqlPushes(database, clock, SqlPushWaiting(database, clock))
    everyone = await SqlAudiences(database).everyone()
    if len(everyone) < acked:
        raise SystemExit(f"there are {len(everyone)} devices, fewer than {acked}")
    # The first that were registered have the lowest numbers.
    those = BitMap(sorted(everyone)[:acked])
    for at in range(count):
        await pushes.create(_new_push(at, clock.now_ms()), everyone)
        while await _send(pushes, those, clock):
            pass


def _new_push(at: int, now_ms: int) -> NewPush:
    push_id = new_message_id()
    message = PushMessage(push_id, "news", f'{{"text":"push {at} of the bench"}}'.encode(), now_ms)
    return NewPush(push_id, Audience(everyone=True), message, now_ms, now_ms + TTL_S * 1000, ttl_s=TTL_S)


async def _send(pushes: SqlPushes, those: BitMap, clock: SystemClock) -> int:
    """What a worker and a node would do; how many segments it was."""
    claims = await pushes.claim("bench", SEGMENTS_A_CLAIM, 60_000, clock.now_ms())
    for claim in claims:
        online = bitmaps.part(those, claim.segment)
        done = Dispatched(
            push_no=claim.push_no,
            segment=claim.segment,
            lease_no=claim.lease_no,
            written=online,
            online=len(online),
            cursor=bitmaps.last_of(claim.segment),
            handled=len(claim.targets),
            is_done=True,
            lease_until_ms=claim.lease_until_ms,
        )
        await pushes.dispatched(done, clock.now_ms())
        await _merge(pushes, SegmentReceipts(claim.push_no, claim.segment, online, BitMap(), Histogram()))
    return len(claims)


async def _merge(pushes: SqlPushes, receipts: SegmentReceipts) -> None:
    kept: asyncio.Future[Status] = asyncio.get_running_loop().create_future()

    def done(_: Sequence[SegmentReceipts], status: Status) -> None:
        kept.set_result(status)

    pushes.merge([receipts], done)
    if await kept is not Status.OK:
        raise SystemExit("the store did not take the acknowledgements")


async def _main(what: str, data: Path, numbers: list[int]) -> None:
    database = SqliteDatabase(data)
    await database.start()
    try:
        if what == "devices" and len(numbers) == 1:
            await add_devices(database, numbers[0])
        elif what == "pushes" and len(numbers) == 2:
            await add_pushes(database, numbers[0], numbers[1])
        else:
            raise SystemExit(__doc__)
    finally:
        await database.stop()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], Path(sys.argv[2]), [int(word) for word in sys.argv[3:]]))
