"""Push stores as the contract tests take them, and short words for what tests say often."""

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

from msgspec.structs import replace
from pyroaring import BitMap

from longwire.adapters.embedded.receipts import EmbeddedReceipts
from longwire.adapters.sql.accounts import SqlAccounts
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.push_waiting import SqlPushWaiting
from longwire.adapters.sql.pushes import SqlPushes
from longwire.histogram import Histogram
from longwire.ids import new_message_id
from longwire.operations_model import Event
from longwire.ports.push_work import PushWork
from longwire.ports.pushes import PushStore
from longwire.ports.receipts import ReceiptLog
from longwire.ports.waiting import WaitingHints
from longwire.push_model import (
    Audience,
    Claim,
    Dispatched,
    Goes,
    NewPush,
    Priority,
    Push,
    PushMessage,
    PushStats,
    SegmentReceipts,
)
from longwire.testing import ManualClock

DAY_S = 86_400
LEASE_MS = 30_000
SEGMENT = 65_536
HANG_GUARD_S = 20.0


@dataclass
class Made:
    """A store and what goes with it."""

    store: PushStore
    work: PushWork
    receipts: ReceiptLog
    waiting: SqlPushWaiting
    clock: ManualClock
    database: Database
    accounts: SqlAccounts
    events: list[Event] = field(default_factory=list)
    wanted: set[str] = field(default_factory=set)

    def new(
        self,
        *,
        ttl_s: int = 3_600,
        key: str = "",
        rate: int | None = None,
        priority: Priority = Priority.NORMAL,
        send_in_s: float | None = None,
        push_id: bytes | None = None,
        payload: bytes = b"hello",
    ) -> NewPush:
        now = self.clock.now_ms()
        begin = now + round((send_in_s or 0) * 1000)
        push_id = push_id or new_message_id()
        return NewPush(
            push_id,
            Audience(devices=("d-1",)),
            PushMessage(push_id, "news", payload, now, collapse_key=key, trace=b"t" * 24),
            now,
            begin + (ttl_s * 1000 or 5_000),
            caller="key:k1",
            priority=priority,
            ttl_s=ttl_s,
            send_at_ms=None if send_in_s is None else begin,
            rate_per_s=rate,
        )

    def notice(self, push: Push) -> NewPush:
        new = self.new(ttl_s=DAY_S, priority=Priority.HIGH)
        message = replace(new.message, kind="longwire.withdrawn")
        return replace(new, audience=Audience(notice_of="psh_x"), message=message, notice_of=push.push_no)

    async def push(self, devices: Iterable[int], **options: object) -> Push:
        made, is_new = await self.store.create(self.new(**options), BitMap(devices))  # type: ignore[arg-type]
        assert is_new
        return made

    async def again(self, push: Push) -> Push:
        """The push as it is now; it must add up."""
        found = await self.store.find(push.new.push_id, self.clock.now_ms())
        assert found is not None
        assert_adds_up(found.stats)
        return found

    async def stats(self, push: Push) -> PushStats:
        return (await self.again(push)).stats

    async def claim(self, limit: int = 100, worker: str = "w-1") -> list[Claim]:
        return await self.work.claim(worker, limit, LEASE_MS, self.clock.now_ms())

    async def written(
        self, claim: Claim, devices: Iterable[int] = (), *, is_done: bool = True, cursor: int = -1, online: int = 0
    ) -> Goes:
        """Tells what was written of a claim."""
        told = BitMap(devices)
        until_ms = self.clock.now_ms() + LEASE_MS
        done = Dispatched(
            claim.push_no, claim.segment, claim.lease_no, told, online, cursor, len(told), is_done, until_ms
        )
        return await self.work.dispatched(done, self.clock.now_ms())

    async def send(self, push: Push, written: Iterable[int] = ()) -> None:
        """Has all segments of the push done; ``written`` were online."""
        told = BitMap(written)
        for claim in await self.claim():
            if claim.push_no == push.push_no:
                here = told & claim.targets
                await self.written(claim, here, online=len(here))

    async def ack(self, push: Push, devices: Iterable[int]) -> None:
        await self.tell(receipts(push, devices))

    async def tell(self, *parts: SegmentReceipts) -> None:
        told: list[object] = []
        self.receipts.append(parts, lambda _parts, status: told.append(status))
        await self.database.write(lambda _connection: None)
        assert told == [0]


def receipts(push: Push, acked: Iterable[int], written: Iterable[int] = (), latency_ms: float = 5) -> SegmentReceipts:
    """What a node tells of devices of one segment."""
    latency = Histogram()
    for _ in acked:
        latency.add(latency_ms)
    devices = BitMap(acked) | BitMap(written)
    return SegmentReceipts(push.push_no, devices.min() >> 16, BitMap(acked), BitMap(written), latency)


def assert_adds_up(stats: PushStats) -> None:
    ended = stats.acked + stats.expired + stats.failed + stats.collapsed + stats.canceled + stats.withdrawn
    assert stats.targeted == ended + stats.pending


def pushes_on(database: Database, clock: ManualClock, hints: WaitingHints | None = None) -> Made:
    """All of it on one database, which is started."""
    waiting = SqlPushWaiting(database, clock, clock.sleep, hints)
    events: list[Event] = []
    wanted: set[str] = set()
    store = SqlPushes(
        database,
        clock,
        waiting,
        max_live=200,
        note_events=lambda _connection, noted: events.extend(noted),
        wants=wanted.__contains__,
    )
    receipts = EmbeddedReceipts(store)
    return Made(store, store, receipts, waiting, clock, database, SqlAccounts(database), events, wanted)


Maker = Callable[[ManualClock], AbstractAsyncContextManager[Made]]
"""Opens a test's store: empty the first time, and with what is in it the next."""
