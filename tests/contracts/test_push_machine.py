"""Random lives of pushes against a model of plain sets: every device in one state, and the numbers add up, always.

On SQLite the store under test is opened anew whenever it crashes: on a copy of its files as they are at that moment,
while receipts may be on their way, as ``kill -9`` would leave them. On a shared engine there are two of it, as in two
processes, and what begins with one goes on with the other.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
import pytest
from databases import empty
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pyroaring import BitMap

from longwire.adapters.embedded.waiting import EmbeddedWaiting
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.domains import Domain
from longwire.adapters.sql.push_schedule import TTL_0_GRACE_MS
from longwire.adapters.sql.push_segments import forget_device
from longwire.adapters.sql.push_waiting import SqlPushWaiting
from longwire.adapters.sql.pushes import SqlPushes
from longwire.adapters.sql.shared import SharedDatabase, migrate_shared
from longwire.adapters.sql.sqlite import FILE_NAME, SqliteDatabase
from longwire.histogram import Histogram
from longwire.ids import new_message_id
from longwire.ports.push_work import Due
from longwire.ports.pushes import StateConflict
from longwire.ports.waiting import WaitingHints
from longwire.push_model import (
    Audience,
    Claim,
    Dispatched,
    NewPush,
    Priority,
    PushMessage,
    PushQuery,
    PushStatus,
    RecipientState,
    SegmentReceipts,
)
from longwire.testing import ManualClock
from longwire.testing.engines import MariaDb, Postgres

T = TypeVar("T")

LEASE_MS = 30_000
DEVICES = [1, 2, 65_535, 65_536, 65_537, 140_000]
MAX_PUSHES = 4
"""Few, so that much happens to each."""
STRANGERS = [4, 65_538, 300_000]
LAST = {segment: (segment + 1 << 16) - 1 for segment in range(5)}
ENDS = [state for state in RecipientState if state is not RecipientState.PENDING]
LIVE = ("sending", "dispatched")

some_devices = st.frozensets(st.sampled_from(DEVICES), min_size=1)
anybody = st.frozensets(st.sampled_from(DEVICES + STRANGERS))


@dataclass
class Part:
    """A segment of a push as a worker sees it."""

    state: str = "ready"
    lease_no: int = 0
    until_ms: int = 0
    cursor: int = -1


@dataclass
class Model:
    """A push as sets."""

    push_id: bytes
    no: int
    status: str
    ttl_s: int
    expires_ms: int
    key: str
    rate: int | None
    priority: int
    send_at_ms: int | None = None
    is_paused: bool = False
    is_finished: bool = False
    lease_no: int = 0
    lease_until_ms: int = 0
    notice: "Model | None" = None
    lost_its_last_device: bool = False
    targeted: set[int] = field(default_factory=set)
    written: set[int] = field(default_factory=set)
    ends: dict[RecipientState, set[int]] = field(default_factory=lambda: {state: set() for state in ENDS})
    parts: dict[int, Part] = field(default_factory=dict)

    def pending(self) -> set[int]:
        return self.targeted.difference(*self.ends.values())

    def state_of(self, device: int, now: int) -> RecipientState:
        for state in ENDS:
            if device in self.ends[state]:
                return state
        return RecipientState.EXPIRED if now >= self.expires_ms else RecipientState.PENDING

    def who_is(self, state: RecipientState, now: int) -> set[int]:
        return {device for device in self.targeted if self.state_of(device, now) is state}

    def end(self, state: RecipientState, devices: Iterable[int]) -> None:
        self.ends[state] |= self.pending().intersection(devices)

    def is_live(self) -> bool:
        return self.status in LIVE

    def is_open(self, now: int) -> bool:
        return self.is_live() and self.ttl_s > 0 and now < self.expires_ms

    def of(self, segment: int) -> set[int]:
        return {device for device in self.targeted if device >> 16 == segment}

    def finish(self, segment: int) -> None:
        part = self.parts[segment]
        part.state, part.cursor = "done", LAST[segment]
        if self.ttl_s == 0:
            self.end(RecipientState.EXPIRED, self.of(segment) - self.written)

    def complete(self) -> None:
        self.status = "completed"
        for part in self.parts.values():
            if part.state == "ready":
                part.state = "done"

    def void(self) -> None:
        for part in self.parts.values():
            part.state = "done"
            part.lease_no += 1

    def move_on(self) -> None:
        if not self.is_live():
            return
        states = {part.state for part in self.parts.values()}
        if not self.pending() and "leased" not in states:
            self.complete()
        elif self.status == "sending" and not self.is_paused and states == {"done"}:
            self.status = "dispatched"

    def shown(self) -> str:
        if self.status != "sending":
            return self.status
        if self.is_paused:
            return "paused"
        return "sending" if any(part.lease_no for part in self.parts.values()) else "accepted"

    def free(self, now: int) -> list[int]:
        if self.status != "sending" or self.is_paused or now >= self.expires_ms:
            return []
        over = sorted(s for s, part in self.parts.items() if part.state != "done" and part.until_ms <= now)
        if self.rate is None:
            return over
        is_taken = any(part.state == "leased" and part.until_ms > now for part in self.parts.values())
        return [] if is_taken else over[:1]


class Pushes(RuleBasedStateMachine):
    pushes = Bundle("pushes")
    claims = Bundle("claims")
    dues = Bundle("dues")

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.runner = asyncio.Runner()
        self.root = Path(tempfile.mkdtemp(dir=self.template.parent))
        self.folders = 0
        self.models: list[Model] = []
        self.open_first()

    def teardown(self) -> None:
        self.run(self.database.stop())
        self.runner.close()
        shutil.rmtree(self.root)

    def open_first(self) -> None:
        self.open_on(self.template)

    def open_again(self) -> None:
        """As what comes after a crash does."""
        database = self.database
        self.open_on(self.folder)
        self.run(database.stop())

    def go_elsewhere(self) -> None:
        """To another process, where there is one."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    def open_on(self, folder: Path) -> None:
        """Opens the store on a copy of what lies in the folder."""
        self.folders += 1
        copy = self.root / str(self.folders)
        copy.mkdir()
        for name in (FILE_NAME, f"{FILE_NAME}-wal"):
            if (folder / name).exists():
                shutil.copyfile(folder / name, copy / name)
        self.folder = copy
        self.use(SqliteDatabase(copy))
        self.run(self.database.start())

    def use(self, database: Database, hints: WaitingHints | None = None) -> None:
        self.database = database
        self.waiting = SqlPushWaiting(database, self.clock, hints=hints)
        self.store = SqlPushes(database, self.clock, self.waiting)

    @property
    def now(self) -> int:
        return self.clock.now_ms()

    # -- making ---------------------------------------------------------------------------------------------------

    def new(self, ttl_s: int, key: str, rate: int | None, priority: int, send_in_s: int | None) -> NewPush:
        push_id = new_message_id()
        begin = self.now + (send_in_s or 0) * 1000
        expires = begin + (ttl_s * 1000 or TTL_0_GRACE_MS)
        message = PushMessage(push_id, "k", b"p", self.now, collapse_key=key)
        return NewPush(
            push_id,
            Audience(everyone=True),
            message,
            self.now,
            expires,
            ttl_s=ttl_s,
            rate_per_s=rate,
            priority=Priority(priority),
            send_at_ms=None if send_in_s is None else begin,
        )

    def model_of(self, new: NewPush, push_no: int) -> Model:
        model = Model(
            new.push_id,
            push_no,
            "sending" if new.send_at_ms is None else "scheduled",
            new.ttl_s,
            new.expires_at_ms,
            new.message.collapse_key,
            new.rate_per_s,
            int(new.priority),
            new.send_at_ms,
        )
        self.models.append(model)
        return model

    def start(self, model: Model, devices: Iterable[int]) -> None:
        model.targeted = set(devices)
        model.parts = {device >> 16: Part() for device in model.targeted}
        if model.key:
            for older in self.models:
                if older is not model and older.key == model.key and older.is_open(self.now):
                    older.end(RecipientState.COLLAPSED, model.targeted)
                    older.move_on()
        if not model.targeted:
            model.complete()

    @precondition(lambda self: len(self.models) < MAX_PUSHES)
    @rule(
        target=pushes,
        devices=some_devices,
        ttl_s=st.sampled_from([0, 20, 10_000, 10_000]),
        key=st.sampled_from(["", "", "weather"]),
        rate=st.sampled_from([None, None, 5]),
        priority=st.sampled_from([0, 1, 2]),
    )
    def create(self, devices: frozenset[int], ttl_s: int, key: str, rate: int | None, priority: int) -> Model:
        new = self.new(ttl_s, key, rate, priority, None)
        push, is_new = self.run(self.store.create(new, BitMap(devices)))
        assert is_new
        model = self.model_of(new, push.push_no)
        self.start(model, devices)
        again, is_new = self.run(self.store.create(new, BitMap(devices)))
        assert (again.push_no, is_new) == (push.push_no, False)
        return model

    @precondition(lambda self: len(self.models) < MAX_PUSHES)
    @rule(target=pushes, ttl_s=st.sampled_from([0, 20, 10_000]), key=st.sampled_from(["", "weather"]))
    def schedule(self, ttl_s: int, key: str) -> Model:
        new = self.new(ttl_s, key, None, 1, 3)
        push, _ = self.run(self.store.create(new, BitMap()))
        return self.model_of(new, push.push_no)

    @rule(target=dues)
    def take_due(self) -> Any:
        found = self.run(self.store.due(self.now, LEASE_MS, 10))
        expected = [
            model
            for model in self.models
            if (model.status == "scheduled" and (model.send_at_ms or 0) <= self.now)
            or (model.status == "resolving" and model.lease_until_ms <= self.now)
        ]
        assert sorted(due.push_no for due in found) == sorted(model.no for model in expected)
        for model in expected:
            model.status = "resolving"
            model.lease_no += 1
            model.lease_until_ms = self.now + LEASE_MS
        return multiple(*((due, self.by_no(due.push_no)) for due in found))

    def by_no(self, push_no: int) -> Model:
        return next(model for model in self.models if model.no == push_no)

    @rule(pair=dues, devices=some_devices)
    def begin(self, pair: tuple[Due, Model], devices: frozenset[int]) -> None:
        due, model = pair
        is_mine = model.status == "resolving" and model.lease_no == due.lease_no and self.now < model.lease_until_ms
        assert self.run(self.store.begin(due, BitMap(devices), 0, [], self.now)) == is_mine
        if is_mine:
            model.status = "sending"
            if model.ttl_s == 0:
                model.expires_ms = self.now + TTL_0_GRACE_MS
            self.start(model, devices)

    @rule(pair=dues)
    def give_up(self, pair: tuple[Due, Model]) -> None:
        due, model = pair
        self.run(self.store.give_up(due, "upload gone", self.now))
        if model.status == "resolving" and model.lease_no == due.lease_no:
            model.status = "failed"

    # -- workers --------------------------------------------------------------------------------------------------

    @rule(target=claims, limit=st.integers(1, 4))
    def claim(self, limit: int) -> Any:
        return self.take_claims(limit)

    def take_claims(self, limit: int) -> Any:
        claimed = self.run(self.store.claim("w", limit, LEASE_MS, self.now))
        free = sorted((model.priority, model.no, segment) for model in self.models for segment in model.free(self.now))
        expected = []
        for _, push_no, segment in free[:limit]:
            model = self.by_no(push_no)
            part = model.parts[segment]
            targets = {device for device in model.pending() & model.of(segment) if device > part.cursor}
            if not targets:
                model.finish(segment)
                model.move_on()
                continue
            part.state, part.until_ms = "leased", self.now + LEASE_MS
            part.lease_no += 1
            expected.append((push_no, segment, part.lease_no, targets))
        assert [(c.push_no, c.segment, c.lease_no, set(c.targets)) for c in claimed] == expected
        return multiple(*((claim, self.by_no(claim.push_no)) for claim in claimed))

    @rule(target=claims)
    def leases_run_out(self) -> Any:
        """Workers have died; others go on."""
        self.clock.advance(LEASE_MS / 1000)
        return self.take_claims(4)

    @rule(pair=claims, written=anybody, is_done=st.booleans())
    def dispatched(self, pair: tuple[Claim, Model], written: frozenset[int], is_done: bool) -> None:
        claim, model = pair
        segment = claim.segment
        told = {device for device in written if device >> 16 == segment}
        cursor = max(told, default=-1)
        done = Dispatched(
            model.no, segment, claim.lease_no, BitMap(told), 1, cursor, len(told), is_done, self.now + LEASE_MS
        )
        goes = self.run(self.store.dispatched(done, self.now))
        part = model.parts[segment]
        model.written |= told & model.targeted
        is_going = model.status == "sending" and not model.is_paused
        is_held = part.state == "leased" and part.lease_no == claim.lease_no
        assert goes.is_held == (is_held and is_going)
        if is_held:
            part.cursor = max(part.cursor, cursor)
            if is_done:
                model.finish(segment)
            elif is_going:
                part.until_ms = self.now + LEASE_MS
            else:
                part.state, part.until_ms = "ready" if model.status == "sending" else "done", 0
        model.move_on()

    @rule(pair=claims, error=st.sampled_from(["", "node is away"]))
    def give_back(self, pair: tuple[Claim, Model], error: str) -> None:
        claim, model = pair
        self.run(self.store.give_back(claim, self.now + 2_000, error))
        part = model.parts[claim.segment]
        if part.state == "leased" and part.lease_no == claim.lease_no:
            part.state, part.until_ms = "ready", self.now + 2_000
            model.move_on()

    # -- receipts -------------------------------------------------------------------------------------------------

    def receipts(self, model: Model, acked: frozenset[int], written: frozenset[int]) -> list[SegmentReceipts]:
        latency = Histogram()
        latency.add(5)
        return [
            SegmentReceipts(
                model.no,
                segment,
                BitMap([device for device in acked if device >> 16 == segment]),
                BitMap([device for device in written if device >> 16 == segment]),
                latency,
            )
            for segment in sorted({device >> 16 for device in acked | written})
        ]

    def received(self, model: Model, acked: frozenset[int], written: frozenset[int]) -> None:
        model.written |= model.targeted & (acked | written)
        model.ends[RecipientState.ACKED] |= model.targeted & acked
        model.move_on()

    async def merge(self, told: list[list[SegmentReceipts]]) -> None:
        """All in one turn, and so in one group."""
        outcomes: list[object] = []
        for receipts in told:
            self.store.merge(receipts, lambda _receipts, status: outcomes.append(status))
        async with asyncio.timeout(20):
            while len(outcomes) < len(told):
                await asyncio.sleep(0)
        assert {str(outcome) for outcome in outcomes} <= {"0", "Status.OK"}

    @rule(
        told=st.lists(st.tuples(pushes, anybody, anybody), min_size=1, max_size=3),
        order=st.randoms(use_true_random=False),
        repeats=st.integers(1, 2),
    )
    def tell(self, told: list[tuple[Model, frozenset[int], frozenset[int]]], order: Any, repeats: int) -> None:
        """Acks and writes of several pushes, in any order, once or twice."""
        parts = [[part] for one in told for part in self.receipts(*one)] * repeats
        order.shuffle(parts)
        self.run(self.merge(parts))
        for one in told:
            self.received(*one)

    # -- operators ------------------------------------------------------------------------------------------------

    @rule(model=pushes, is_finished=st.booleans())
    def cancel(self, model: Model, is_finished: bool) -> None:
        self.begin_cancel(model)
        if is_finished:
            self.end_cancel(model, frozenset(), frozenset())

    def begin_cancel(self, model: Model) -> None:
        done = self.run(self.store.cancel(model.no, self.now))
        if model.status == "canceled":
            assert done
        elif model.status in ("completed", "withdrawn", "failed"):
            assert not done
        elif model.is_live() and self.now >= model.expires_ms:
            assert not done
            model.complete()
        else:
            assert done
            model.status = "canceled"
            model.lease_no += 1
            model.void()

    @rule(model=pushes, acked=anybody, written=anybody)
    def finish_cancel(self, model: Model, acked: frozenset[int], written: frozenset[int]) -> None:
        self.end_cancel(model, acked, written)

    def end_cancel(self, model: Model, acked: frozenset[int], written: frozenset[int]) -> None:
        self.run(self.store.finish_cancel(model.no, self.receipts(model, acked, written), self.now))
        self.received(model, acked, written)
        if model.status == "canceled" and not model.is_finished:
            model.is_finished = True
            if self.now < model.expires_ms:
                model.end(RecipientState.CANCELED, model.targeted - model.written)

    @rule(target=pushes, model=pushes, acked=anybody, written=anybody)
    def withdraw(self, model: Model, acked: frozenset[int], written: frozenset[int]) -> Any:
        notice = self.new(100, "", None, 0, None)
        notice = NewPush(
            notice.push_id,
            Audience(notice_of="x"),
            notice.message,
            notice.created_at_ms,
            notice.expires_at_ms,
            priority=Priority.HIGH,
            ttl_s=100,
            notice_of=model.no,
        )
        withdrawing = self.store.withdraw(model.no, self.receipts(model, acked, written), notice, self.now)
        if model.status == "failed":
            with pytest.raises(StateConflict):
                self.run(withdrawing)
            return multiple()
        push, has_receivers = self.run(withdrawing)
        self.received(model, acked, written)
        if model.notice is not None:
            assert (push.push_no, has_receivers) == (model.notice.no, bool(model.notice.targeted))
            return multiple()
        told = model.written | model.ends[RecipientState.ACKED]
        is_over = self.now >= model.expires_ms
        model.end(RecipientState.EXPIRED if is_over else RecipientState.WITHDRAWN, model.targeted)
        model.status = "withdrawn"
        model.lease_no += 1
        model.void()
        assert has_receivers == bool(told)
        model.notice = self.model_of(notice, push.push_no)
        self.start(model.notice, told)
        return model.notice

    @rule(model=pushes, is_paused=st.booleans())
    def pause(self, model: Model, is_paused: bool) -> None:
        assert self.run(self.store.set_paused(model.no, is_paused)) == (model.status == "sending")
        if model.status == "sending":
            model.is_paused = is_paused
            model.move_on()

    @rule(model=pushes, rate=st.sampled_from([None, 7]))
    def set_rate(self, model: Model, rate: int | None) -> None:
        is_settable = model.status in ("scheduled", "resolving", "sending")
        assert self.run(self.store.set_rate(model.no, rate)) == is_settable
        if is_settable:
            model.rate = rate

    @rule(device=st.sampled_from(DEVICES))
    def delete_device(self, device: int) -> None:
        forget = partial(forget_device, device_no=device, now_ms=self.now)
        self.run(self.database.write(forget, Domain.PUSHES, Domain.EVENTS))
        for model in self.models:
            if model.is_open(self.now) and device in model.pending():
                model.end(RecipientState.FAILED, {device})
                model.move_on()
                model.lost_its_last_device = not model.is_live()

    # -- time, the schedule and the worst ---------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 3, 10, 31]))
    def time_passes(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def close(self) -> None:
        over = [model for model in self.models if model.is_live() and self.now >= model.expires_ms]
        assert self.run(self.store.close(self.now, 1_000)) == len(over)
        for model in over:
            model.complete()

    @rule()
    def rebuild_hints(self) -> None:
        for device in DEVICES:
            self.run(self.waiting.who_may_wait([device]))
        self.run(self.waiting.rebuild())

    @rule()
    def crash(self) -> None:
        self.open_again()

    @rule()
    def another_process_goes_on(self) -> None:
        self.go_elsewhere()

    @rule(model=pushes, acked=some_devices)
    def crash_while_receipts_are_on_their_way(self, model: Model, acked: frozenset[int]) -> None:
        async def tell() -> None:
            for part in self.receipts(model, acked, frozenset()):
                self.store.merge([part], lambda _receipts, _status: None)
            await asyncio.sleep(0)

        self.run(tell())
        self.crash()
        kept = self.run(self.store.in_state(model.no, RecipientState.ACKED, self.now))
        assert kept is not None
        before = model.ends[RecipientState.ACKED]
        assert before <= set(kept) <= before | (acked & model.targeted)
        self.received(model, frozenset(set(kept) - before), frozenset())

    # -- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def everything_adds_up(self) -> None:
        self.run(self.check())

    async def check(self) -> None:
        now = self.now
        for model in self.models:
            push = await self.store.find(model.push_id, now)
            assert push is not None
            stats = push.stats
            ended = stats.acked + stats.expired + stats.failed + stats.collapsed + stats.canceled + stats.withdrawn
            assert stats.targeted == ended + stats.pending == len(model.targeted)
            assert stats.written == len(model.written)
            found: list[int] = []
            for state in RecipientState:
                devices = await self.store.in_state(model.no, state, now)
                assert devices is not None
                assert set(devices) == model.who_is(state, now), state
                assert getattr(stats, state.value) == len(devices)
                found += devices
            assert sorted(found) == sorted(model.targeted)
            assert push.status is PushStatus(model.shown())
        assert await self.store.drift((0, -1), 1_000, now) == ([], None)
        unfinished = [m.no for m in self.models if m.status == "canceled" and not m.is_finished]
        assert list(await self.store.half_canceled(100)) == unfinished
        await self.check_waiting(now)

    async def check_waiting(self, now: int) -> None:
        expected = [
            [
                model.no
                for model in self.models
                if model.is_open(now)
                and not model.is_paused
                and device in model.pending()
                and (model.rate is None or device <= model.parts[device >> 16].cursor)
            ]
            for device in DEVICES
        ]
        queries = [PushQuery(device, 0, 1_000) for device in DEVICES]
        assert await self.waiting.waiting(queries, now) == expected
        waits = {device for device, push_nos in zip(DEVICES, expected, strict=True) if push_nos}
        assert waits <= await self.waiting.who_may_wait(DEVICES)
        assert waits <= set(await self.waiting.online_waiting(BitMap(DEVICES)))
        told = [model for model in self.models if not model.lost_its_last_device]
        live = await self.waiting.messages([model.no for model in told], now)
        assert [one is not None for one in live] == [m.is_live() and now < m.expires_ms for m in told]


class SharedPushes(Pushes):
    """Two processes on one database. In the place of Redis, hints that both have."""

    url: str

    def open_first(self) -> None:
        self.hints = EmbeddedWaiting()
        self.use(self.opened(), self.hints)
        self.run(self.database.write(empty))
        self.elsewhere = (self.database, self.waiting, self.store)
        self.use(self.opened(), self.hints)

    def opened(self) -> Database:
        database = SharedDatabase(self.url)
        self.run(database.start())
        return database

    def open_again(self) -> None:
        self.run(self.database.stop())
        self.use(self.opened(), self.hints)

    def go_elsewhere(self) -> None:
        here = (self.database, self.waiting, self.store)
        (self.database, self.waiting, self.store), self.elsewhere = self.elsewhere, here

    def teardown(self) -> None:
        self.run(self.elsewhere[0].stop())
        super().teardown()


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A data folder with a fresh database."""

    async def make() -> None:
        database = SqliteDatabase(tmp_path / "template")
        await database.start()
        await database.stop()

    asyncio.run(make())
    return tmp_path / "template"


def run_machine(machine: type[Pushes], max_examples: int, steps: int, phases: Iterable[Phase]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max_examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
            phases=tuple(phases),
        ),
    )


@pytest.fixture
def alone(template: Path) -> type[Pushes]:
    return type("PushesHere", (Pushes,), {"template": template})


@pytest.fixture(params=["mariadb", "postgres"])
def shared(request: pytest.FixtureRequest, template: Path) -> type[Pushes]:
    engine: MariaDb | Postgres = request.getfixturevalue(f"{request.param}_engine")
    url = engine.fresh_url()
    asyncio.run(migrate_shared(url))
    return type("PushesThere", (SharedPushes,), {"template": template, "url": url})


# Making a failure small takes minutes: the longer tests below do it.
SHORT = set(Phase) - {Phase.shrink, Phase.explain}


def test_whatever_happens_to_a_push_its_numbers_add_up(alone) -> None:
    run_machine(alone, 20, 50, SHORT)


def test_whatever_happens_to_a_push_in_two_processes_its_numbers_add_up(shared) -> None:
    run_machine(shared, 3, 50, SHORT)


@pytest.mark.chaos
def test_whatever_happens_to_a_push_its_numbers_add_up_for_longer(alone) -> None:
    run_machine(alone, 300, 80, Phase)


@pytest.mark.chaos
def test_whatever_happens_to_a_push_in_two_processes_its_numbers_add_up_for_longer(shared) -> None:
    run_machine(shared, 40, 80, Phase)
