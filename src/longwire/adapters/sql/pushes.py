"""Pushes on the SQL database: kept, steered, claimed, merged; each call is one transaction.

Two kinds of writes are gathered. *Merges*: what nodes and workers tell of segments, a row read and written once for
all that waits together. *Deeds*: everything else, one behind the other. What a write changes in memory (hints, the
cache of messages, the workers' bell) follows its commit, before its caller goes on, and also where the caller is gone.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from pyroaring import BitMap
from sqlalchemy import Connection

from longwire.adapters.sql import push_leases, push_records, push_schedule, push_segments, push_states
from longwire.adapters.sql.database import Database
from longwire.adapters.sql.domains import Domain
from longwire.adapters.sql.idempotency import keep_answer
from longwire.adapters.sql.push_events import NoteEvents, PushEvents
from longwire.adapters.sql.push_segments import Effects
from longwire.adapters.sql.push_waiting import SqlPushWaiting
from longwire.adapters.sql.trace_refs import note_refs
from longwire.clock import Clock
from longwire.errors import LongwireError, StoreUnavailable
from longwire.ports.push_work import Due
from longwire.ports.pushes import AnsweredBefore, StateConflict, TooManyPushes
from longwire.ports.receipts import ReceiptsCallback
from longwire.ports.trace_rows import RefKind
from longwire.push_model import (
    ENDED,
    Claim,
    Dispatched,
    Goes,
    KeptAnswer,
    NewPush,
    Push,
    PushStatus,
    RecipientState,
    SegmentReceipts,
)
from longwire.reasons import Status

log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")

_LOOK_EVERY_S = 0.1
"""In a shared database, how often a worker that waits looks whether another process made work."""
_MOMENT_HOLDS_S = 1.0
"""There, how long what was read of the schedule is believed."""


@dataclass(slots=True)
class _Told:
    """What a node or a worker tells, and who is called when it is durable."""

    parts: Sequence[SegmentReceipts | Dispatched]
    settle: Callable[[Sequence[Goes]], None]
    fail: Callable[[Exception], None]


@dataclass(slots=True)
class _Deed:
    """A write that somebody awaits. An error that it returns is raised to its caller: nothing was written then."""

    run: Callable[[Connection, Effects], Any]
    future: asyncio.Future[Any]


class SqlPushes:
    """ports.pushes.PushStore and ports.push_work.PushWork on one database.

    ``note_events`` and ``wants`` are the outbox of webhooks (push_events.py).
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        waiting: SqlPushWaiting,
        *,
        max_live: int = 100_000,
        note_events: NoteEvents | None = None,
        wants: Callable[[str], bool] = lambda _kind: False,
        registered: Callable[[Connection], BitMap] | None = None,
    ) -> None:
        """``registered``: every device there is; without it a notice of withdrawal also goes to deleted ones."""
        self._database = database
        self._clock = clock
        self._waiting = waiting
        self._max_live = max_live
        self._registered = registered
        self._events = PushEvents(note_events, wants)
        self._has_work = asyncio.Event()
        self._next_moment: int | None = None
        """When something is due or over, at the earliest; None: never."""
        self._moment_holds_until = -math.inf
        """As the monotonic clock shows it: until then the moment above is not asked for again."""
        self._looked_for_half_canceled = 0
        # Merges first: what is told of a push before it is cancelled or withdrawn counts.
        self._merges = database.stage(
            self._run_merges, self._merged, lambda told, error: told.fail(error), Domain.PUSHES, Domain.EVENTS
        )
        self._deeds = database.stage(self._run_deeds, self._done, _failed, Domain.PUSHES, Domain.EVENTS)

    async def start(self) -> None:
        """Ends the leases of the process before, where the folder's lock says that it is gone; elsewhere they run out.

        Raises StoreUnavailable.
        """
        if not self._database.is_shared:
            await self._database.write(push_leases.end_all, Domain.PUSHES)

    # -- merges -----------------------------------------------------------------------------------------------

    def merge(self, receipts: Sequence[SegmentReceipts], done: ReceiptsCallback) -> None:
        """See ReceiptLog.append; merging the same again changes nothing."""
        self._merges.add(
            _Told(
                receipts,
                lambda _answers: done(receipts, Status.OK),
                lambda _error: done(receipts, Status.NOT_DURABLE),
            )
        )

    async def dispatched(self, done: Dispatched, now_ms: int) -> Goes:
        self._database.check_open()
        future: asyncio.Future[Goes] = asyncio.get_running_loop().create_future()
        self._merges.add(
            _Told([done], lambda answers: _settle(future, answers[0]), lambda error: _refuse(future, error))
        )
        return await future

    def _run_merges(self, connection: Connection, told: list[_Told]) -> list[tuple[Sequence[Goes], Effects]]:
        parts = [part for one in told for part in one.parts]
        effects = Effects()
        answers = push_segments.merge(connection, parts, self._clock.now_ms(), effects, self._events)
        results: list[tuple[Sequence[Goes], Effects]] = []
        at = 0
        for one in told:
            # The first one's call-back applies what all of them changed.
            results.append((answers[at : at + len(one.parts)], Effects() if results else effects))
            at += len(one.parts)
        return results

    def _merged(self, told: _Told, result: tuple[Sequence[Goes], Effects]) -> None:
        answers, effects = result
        self._apply(effects, lambda: told.settle(answers))

    # -- deeds ------------------------------------------------------------------------------------------------

    async def _do(self, run: Callable[Concatenate[Connection, Effects, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Runs ``run`` in the next group; durable when it returns. Cancelling the caller does not undo it."""
        self._database.check_open()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._deeds.add(_Deed(lambda connection, effects: run(connection, effects, *args, **kwargs), future))
        return await future

    def _run_deeds(self, connection: Connection, deeds: list[_Deed]) -> list[tuple[Any, Effects]]:
        results = []
        for deed in deeds:
            effects = Effects()
            results.append((deed.run(connection, effects), effects))
        return results

    def _done(self, deed: _Deed, result: tuple[Any, Effects]) -> None:
        value, effects = result
        tell = _refuse if isinstance(value, LongwireError) else _settle
        self._apply(effects, lambda: tell(deed.future, value))

    def _apply(self, effects: Effects, tell: Callable[[], None]) -> None:
        """Hints before the bell and before the caller: a worker that looks for devices finds who came before them."""
        self._waiting.changed(effects.changed)
        self._waiting.ended(effects.ended)
        if effects.moves_schedule:
            self._moment_holds_until = -math.inf

        def hinted() -> None:
            if effects.has_work:
                self._has_work.set()
            tell()

        self._waiting.added(effects.added, hinted)

    # -- PushStore --------------------------------------------------------------------------------------------

    async def create(self, new: NewPush, devices: BitMap, keep: KeptAnswer | None = None) -> tuple[Push, bool]:
        return await self._do(self._create, new, devices, keep)

    def _create(
        self, connection: Connection, effects: Effects, new: NewPush, devices: BitMap, keep: KeptAnswer | None
    ) -> Any:
        effects.moves_schedule = True
        now_ms = self._clock.now_ms()
        known = push_records.find_sent(connection, new.sender_no, new.message.message_id, now_ms)
        if known is not None:
            return known, False
        count = f"SELECT COUNT(*) FROM (SELECT 1 FROM pushes WHERE {push_schedule.LIVE} LIMIT ?) AS live"
        live: int = connection.exec_driver_sql(count, (self._max_live,)).scalar_one()
        if live >= self._max_live:
            return TooManyPushes(f"{live} pushes are live")
        kept = None if keep is None else keep_answer(connection, keep)
        if kept is not None:
            return AnsweredBefore(kept)
        if new.send_at_ms is not None:
            push_no = push_records.insert(connection, new, PushStatus.SCHEDULED)
        else:
            push_no = self._insert(connection, effects, new, devices, now_ms)
        if new.message.trace:
            note_refs(connection, RefKind.PUSH, [(new.message.trace, new.push_id, now_ms)])
        return push_records.read(connection, push_no, now_ms), True

    def _insert(self, connection: Connection, effects: Effects, new: NewPush, devices: BitMap, now_ms: int) -> int:
        push_no = push_records.insert(connection, new, PushStatus.SENDING)
        self._start(connection, effects, push_no, new, devices, now_ms)
        return push_no

    def _start(
        self, connection: Connection, effects: Effects, push_no: int, new: NewPush, devices: BitMap, now_ms: int
    ) -> None:
        effects.moves_schedule = True
        parts = push_segments.insert(connection, push_no, int(new.priority), new.ttl_s, devices, effects)
        key = new.message.collapse_key
        if key:
            push_segments.collapse(connection, push_no, key, new.sender_no, parts, now_ms, effects, self._events)
        if not parts:
            push_segments.complete(connection, push_no, now_ms, effects, self._events)

    async def find(self, push_id: bytes, now_ms: int) -> Push | None:
        return await self._database.read(lambda c: push_records.find(c, "push_id", push_id, now_ms))

    async def page(self, before_no: int, limit: int, status: PushStatus | None, now_ms: int) -> list[Push]:
        return await self._database.read(lambda c: push_records.page(c, before_no, limit, status, now_ms))

    async def set_paused(self, push_no: int, is_paused: bool) -> bool:
        return await self._do(self._set_paused, push_no, is_paused)

    def _set_paused(self, connection: Connection, effects: Effects, push_no: int, is_paused: bool) -> bool:
        change = "UPDATE pushes SET is_paused = ? WHERE push_no = ? AND status = 'sending'"
        if connection.exec_driver_sql(change, (is_paused, push_no)).rowcount == 0:
            return False
        if not is_paused:
            effects.added |= push_segments.open_rest(connection, push_no)
            effects.has_work = True
            push_segments.advance(connection, push_no, self._clock.now_ms(), effects, self._events)
        return True

    async def set_rate(self, push_no: int, rate_per_s: int | None) -> bool:
        return await self._do(_set_rate, push_no, rate_per_s)

    async def cancel(self, push_no: int, now_ms: int) -> bool:
        return await self._do(self._cancel, push_no, now_ms)

    def _cancel(self, connection: Connection, effects: Effects, push_no: int, now_ms: int) -> bool:
        status, expires_at_ms = _standing(connection, push_no)
        if status is PushStatus.CANCELED:
            return True
        if status is None or status in ENDED:
            return False
        if status in (PushStatus.SENDING, PushStatus.DISPATCHED) and now_ms >= expires_at_ms:
            push_segments.complete(connection, push_no, now_ms, effects, self._events)
            return False
        _end(connection, push_no, PushStatus.CANCELED, now_ms)
        push_segments.void(connection, push_no, effects)
        return True

    async def finish_cancel(self, push_no: int, receipts: Sequence[SegmentReceipts], now_ms: int) -> None:
        await self._do(self._finish_cancel, push_no, receipts, now_ms)

    def _finish_cancel(
        self,
        connection: Connection,
        effects: Effects,
        push_no: int,
        receipts: Sequence[SegmentReceipts],
        now_ms: int,
    ) -> None:
        push_segments.merge(connection, receipts, now_ms, effects, self._events)
        finish = (
            "UPDATE pushes SET finished_at_ms = ? WHERE push_no = ? AND status = 'canceled' AND finished_at_ms IS NULL"
        )
        if connection.exec_driver_sql(finish, (now_ms, push_no)).rowcount:
            push_segments.cancel_unwritten(connection, push_no, now_ms)

    async def withdraw(
        self, push_no: int, receipts: Sequence[SegmentReceipts], notice: NewPush, now_ms: int
    ) -> tuple[Push, bool]:
        return await self._do(self._withdraw, push_no, receipts, notice, now_ms)

    def _withdraw(
        self,
        connection: Connection,
        effects: Effects,
        push_no: int,
        receipts: Sequence[SegmentReceipts],
        notice: NewPush,
        now_ms: int,
    ) -> Any:
        status, _ = _standing(connection, push_no)
        if status is None or status is PushStatus.FAILED:
            return StateConflict(f"push {push_no} {'does not exist' if status is None else 'has failed'}")
        push_segments.merge(connection, receipts, now_ms, effects, self._events)
        if status is PushStatus.WITHDRAWN:
            kept = push_records.find(connection, "notice_of", push_no, now_ms)
            assert kept is not None, "a notice is kept no shorter than its push"
            return kept, kept.stats.targeted > 0
        told = push_segments.withdraw_rest(connection, push_no, now_ms)
        if self._registered is not None:
            # Who has been deleted since can be told nothing, and would stay pending.
            told &= self._registered(connection)
        _end(connection, push_no, PushStatus.WITHDRAWN, now_ms)
        push_segments.void(connection, push_no, effects)
        notice_no = self._insert(connection, effects, notice, told, now_ms)
        return push_records.read(connection, notice_no, now_ms), bool(told)

    async def in_state(self, push_no: int, state: RecipientState, now_ms: int) -> BitMap | None:
        return await self._database.read(lambda c: push_states.in_state(c, push_no, state, now_ms))

    async def state_of(self, push_no: int, device_no: int, now_ms: int) -> tuple[RecipientState, bool, str] | None:
        return await self._database.read(lambda c: push_states.state_of(c, push_no, device_no, now_ms))

    async def reasons(self, push_no: int, device_nos: Sequence[int]) -> dict[int, str]:
        return await self._database.read(lambda c: push_states.reasons(c, push_no, device_nos))

    async def drift(self, after: tuple[int, int], limit: int, now_ms: int) -> tuple[list[str], tuple[int, int] | None]:
        return await self._database.read(lambda c: push_states.drift(c, after, limit, now_ms))

    # -- PushWork ---------------------------------------------------------------------------------------------

    async def wait(self, within_s: float) -> None:
        """Where other processes share the database, it also looks there, ten times a second."""
        with contextlib.suppress(TimeoutError, StoreUnavailable):  # a claim says what is the matter with the store
            async with asyncio.timeout(within_s):
                if self._database.is_shared:
                    await self._work_anywhere()
                else:
                    await self._has_work.wait()
                self._has_work.clear()

    async def _work_anywhere(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._has_work.wait()
                    return
            if await self._database.read(lambda connection: push_leases.has_free(connection, self._clock.now_ms())):
                return

    async def claim(self, worker: str, limit: int, lease_ms: int, now_ms: int) -> list[Claim]:
        def run(connection: Connection, effects: Effects) -> list[Claim]:
            claims = push_leases.claim(connection, worker, limit, lease_ms, now_ms, effects, self._events)
            if self._database.is_shared:
                # Who made the push may not have come to its hints yet, and will not if it has died: a device that
                # the worker finds nowhere must find the hint when it comes.
                effects.added |= BitMap.union(BitMap(), *(one.targets for one in claims if not one.is_online_only))
            return claims

        return await self._do(run)

    async def give_back(self, claim: Claim, not_before_ms: int, error: str) -> None:
        def run(connection: Connection, effects: Effects) -> None:
            now_ms = self._clock.now_ms()
            push_leases.give_back(connection, claim, not_before_ms, error, now_ms, effects, self._events)

        await self._do(run)
        if error:
            log.warning("segment %d of push %d is given back: %s", claim.segment, claim.push_no, error)

    async def due(self, now_ms: int, lease_ms: int, limit: int) -> Sequence[Due]:
        return await self._do(_due, now_ms, lease_ms, limit)

    async def begin(self, due: Due, devices: BitMap, unresolved: int, sample: Sequence[str], now_ms: int) -> bool:
        return await self._do(self._begin, due, devices, unresolved, sample, now_ms)

    def _begin(
        self,
        connection: Connection,
        effects: Effects,
        due: Due,
        devices: BitMap,
        unresolved: int,
        sample: Sequence[str],
        now_ms: int,
    ) -> bool:
        if not push_schedule.begin(connection, due, unresolved, sample, now_ms):
            return False
        self._start(connection, effects, due.push_no, due.new, devices, now_ms)
        return True

    async def give_up(self, due: Due, reason: str, now_ms: int) -> None:
        await self._do(_give_up, due, reason, now_ms)

    async def close(self, now_ms: int, limit: int) -> int:
        return await self._do(self._close, now_ms, limit)

    def _close(self, connection: Connection, effects: Effects, now_ms: int, limit: int) -> int:
        push_nos = push_schedule.over(connection, now_ms, limit)
        for push_no in push_nos:
            push_segments.complete(connection, push_no, now_ms, effects, self._events)
        return len(push_nos)

    async def half_canceled(self, limit: int) -> Sequence[int]:
        """All there are; once there are none, those of the last hour."""
        since_ms = self._looked_for_half_canceled
        found = await self._database.read(lambda c: push_schedule.half_canceled(c, since_ms, limit))
        if not found:
            self._looked_for_half_canceled = self._clock.now_ms() - 3_600_000
        return found

    async def next_moment_ms(self) -> int | None:
        known, now = self._next_moment, self._clock.monotonic()
        # Asked four times a second: from memory, until that moment or until something may have moved it.
        if now < self._moment_holds_until and (known is None or known > self._clock.now_ms()):
            return known
        # What is committed while the read runs takes this back (_apply).
        self._moment_holds_until = now + (_MOMENT_HOLDS_S if self._database.is_shared else math.inf)
        try:
            self._next_moment = await self._database.read(push_schedule.next_moment_ms)
        except BaseException:
            self._moment_holds_until = -math.inf
            raise
        return self._next_moment


def _settle(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _refuse(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        is_ours = isinstance(error, LongwireError)
        future.set_exception(error if is_ours else StoreUnavailable(f"write refused: {error}"))


def _failed(deed: _Deed, error: Exception) -> None:
    _refuse(deed.future, error)


def _standing(connection: Connection, push_no: int) -> tuple[PushStatus | None, int]:
    row = connection.exec_driver_sql("SELECT status, expires_at_ms FROM pushes WHERE push_no = ?", (push_no,)).first()
    return (None, 0) if row is None else (PushStatus(row[0]), row[1])


def _end(connection: Connection, push_no: int, status: PushStatus, now_ms: int) -> None:
    """One that had ended keeps its moment. Nobody goes on with a lease of its schedule."""
    connection.exec_driver_sql(
        "UPDATE pushes SET status = ?, ended_at_ms = COALESCE(ended_at_ms, ?), lease_no = lease_no + 1"
        " WHERE push_no = ?",
        (status.value, now_ms, push_no),
    ).close()


def _set_rate(connection: Connection, effects: Effects, push_no: int, rate_per_s: int | None) -> bool:
    effects.has_work = True
    change = "UPDATE pushes SET rate_per_s = ? WHERE push_no = ? AND status IN ('scheduled', 'resolving', 'sending')"
    return connection.exec_driver_sql(change, (rate_per_s, push_no)).rowcount == 1


def _due(connection: Connection, effects: Effects, now_ms: int, lease_ms: int, limit: int) -> list[Due]:
    effects.moves_schedule = True
    return push_schedule.due(connection, now_ms, lease_ms, limit)


def _give_up(connection: Connection, _effects: Effects, due: Due, reason: str, now_ms: int) -> None:
    push_schedule.give_up(connection, due, reason, now_ms)
