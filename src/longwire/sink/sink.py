"""The sink: gives each record of the uplink log to its handler, at least once, each device's in order.

    log.read ──► window ──► lane of the device ──► handler        done ──► cursor ──► log.flush
                 bounded    one record at a time   bounded calls  buried ─┘
                            (the others wait)      retried        nobody's ┘

A lane is a task that lives while its device has records in the window. While a record of a device is tried
again, that device's later records wait and other devices go on. When the window is full, of whatever, reading
pauses: the log keeps what is not read, nothing is lost. So that one device whose messages make a handler fail
cannot hold up all the others for hours, a device with more than its fair share of a full window loses its
retries: what fails goes to the dead letters, from where it can be replayed.

A record's failures are counted in memory: after a crash the count begins anew.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import NamedTuple, TypeVar

from longwire.application import Context, Longwire, Result, UplinkHandler, call
from longwire.application.payloads import presentable
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ids import message_id_text
from longwire.model import UplinkRecord
from longwire.ports.uplink import UplinkReader
from longwire.reasons import Status
from longwire.sink.settings import SinkSettings
from longwire.sink.window import Entry, Window
from longwire.traces import CALL, NO_TRACES, SAMPLED, Call, Traces

logger = logging.getLogger("longwire.sink")

Sleep = Callable[[float], Awaitable[None]]
T = TypeVar("T")

NOT_ITS_FAULT = frozenset({Status.OVERLOADED, Status.NOT_DURABLE})
"""Statuses that say nothing about the record: it is tried again for as long as they last."""


class _Work(NamedTuple):
    """A record in its device's lane."""

    entry: Entry
    record: UplinkRecord
    handler: UplinkHandler


Lane = deque[_Work]


class Counts:
    """What the sink has done since it was made; plain numbers for the metrics."""

    __slots__ = ("buried", "flushed", "handled", "moved", "read", "retried", "unhandled")

    def __init__(self) -> None:
        self.read = 0
        self.handled = 0
        self.retried = 0
        """Calls that failed and were or will be repeated."""
        self.buried = 0
        self.moved = 0
        """Records that another sink took over before they were done here."""
        self.unhandled = 0
        """Records of a kind that no handler takes; they stay in the log for its other readers."""
        self.flushed = 0
        """Writes of the cursor."""


class Sink:
    """One consumer of the uplink log for one application. ``run`` is its owner; it runs once."""

    def __init__(
        self,
        log: UplinkReader,
        app: Longwire,
        *,
        clock: Clock,
        settings: SinkSettings | None = None,
        sleep: Sleep = asyncio.sleep,
        randomness: random.Random | None = None,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._traces = traces
        self.counts = Counts()
        self._log = log
        self._app = app
        self._clock = clock
        self._settings = settings or SinkSettings()
        self._sleep = sleep
        self._random = randomness or random.Random()  # noqa: S311 - jitter
        self._window = Window(self._settings)
        self._calls = asyncio.Semaphore(self._settings.max_calls)
        self._lanes: dict[int, Lane] = {}
        self._lane_tasks: set[asyncio.Task[None]] = set()
        self._resting: set[asyncio.Task[None]] = set()
        self._group = asyncio.TaskGroup()
        self._is_stopping = asyncio.Event()
        self._has_ended = asyncio.Event()
        self._is_running = False

    @property
    def waiting(self) -> int:
        """Records read that are not done."""
        return self._window.unfinished

    @property
    def span(self) -> int:
        """Records that would come again after a crash now, flushing apart."""
        return self._window.span

    @property
    def running(self) -> int:
        """Handlers that run or are about to."""
        return len(self._lane_tasks) - len(self._resting)

    @property
    def lag_ms(self) -> int:
        """The age of the oldest record that is read and not done; 0 where there is none."""
        oldest = self._window.oldest
        return max(0, self._clock.now_ms() - oldest.sent_at_ms) if oldest is not None else 0

    async def run(self) -> None:
        """Consumes until ``stop``: then no more is read, running handlers get their time, the cursor is written.

        An engine that is away is waited for. Cancelling this is a crash: handlers are cancelled, nothing is
        flushed, records come again. Raises an ExceptionGroup of whatever else the log raised, after the same.
        """
        if self._is_running or self._has_ended.is_set():
            raise RuntimeError("a sink runs once")
        self._is_running = True
        try:
            async with self._group:
                reading = self._group.create_task(self._keep_reading())
                flushing = self._group.create_task(self._keep_flushing())
                await self._is_stopping.wait()
                reading.cancel()
                await self._let_calls_finish()
                flushing.cancel()
            await self._flush_a_last_time()
        finally:
            self._is_running = False
            self._has_ended.set()

    async def stop(self) -> None:
        """Asks ``run`` to end and waits until it has; at most about ``stop_within_s`` + ``last_flush_within_s``."""
        self._is_stopping.set()
        if self._is_running:
            await self._has_ended.wait()

    # Reading

    async def _keep_reading(self) -> None:
        failures = 0
        while True:
            room = await self._window.room()
            try:
                records = await self._log.read(self._settings.consumer, min(room, self._settings.read_records))
            except StoreUnavailable as error:
                failures += 1
                if failures == 1:
                    logger.warning("the uplink log cannot be read; waiting for it: %s", error)
                await self._sleep(self._backoff_s(failures))
                continue
            if failures:
                logger.info("the uplink log is read again after %d failures", failures)
                failures = 0
            for record in records:
                self._take(record)
            await asyncio.sleep(0)  # a log that is always ready must not keep the loop

    def _take(self, record: UplinkRecord) -> None:
        self.counts.read += 1
        entry = self._window.admit(record)
        handler = self._app.find_uplink(record.kind)
        if handler is None:
            self.counts.unhandled += 1
            self._window.finish(entry)
            return
        lane = self._lanes.get(record.device_no)
        if lane is not None:
            lane.append(_Work(entry, record, handler))
            return
        lane = self._lanes[record.device_no] = deque((_Work(entry, record, handler),))
        task = self._group.create_task(self._serve(record.device_no, lane))
        self._lane_tasks.add(task)
        task.add_done_callback(self._lane_tasks.discard)

    # One device

    async def _serve(self, device_no: int, lane: Lane) -> None:
        try:
            while lane and not self._is_stopping.is_set():
                work = lane[0]
                if await self._see_through(work.record, work.handler, lane):
                    lane.popleft()
                    self._window.finish(work.entry)
                    if lane:
                        await asyncio.sleep(0)  # a handler that never waits must not keep the loop
        finally:
            del self._lanes[device_no]

    async def _see_through(self, record: UplinkRecord, handler: UplinkHandler, lane: Lane) -> bool:
        """Whether the record is handled, buried or another sink's; False where a stop came between two calls."""
        failures = 0
        attempt = 0
        while not self._is_stopping.is_set():
            if not self._log.holds(self._settings.consumer, record):
                self.counts.moved += 1
                return True
            attempt += 1
            result = await self._call(record, handler, attempt)
            if result.status is Status.OK:
                self.counts.handled += 1
                return True
            if result.status not in NOT_ITS_FAULT:
                failures += 1
                if (
                    result.status is Status.BAD_REQUEST
                    or failures >= self._settings.attempts
                    or self._has_more_than_its_share(lane)
                ):
                    return await self._bury(record, attempt, result)
            self.counts.retried += 1
            await self._rest(attempt)
        return False

    async def _call(self, record: UplinkRecord, handler: UplinkHandler, attempt: int) -> Result:
        await self._interruptible(self._calls.acquire())
        trace, began_ns = record.trace, 0
        # What the handler logs belongs to the message's trace; the lane is a task of its own.
        CALL.set(Call(trace=trace) if trace else None)
        if trace and trace[23] & SAMPLED:
            began_ns = self._traces.now_ns()
        try:
            ctx = Context(
                message_id=record.message_id,
                kind=record.kind,
                device_id=record.device_id,
                device_no=record.device_no,
                sent_at_ms=record.sent_at_ms,
                trace=record.trace,
                attempt=attempt,
                services=self._app.services,
            )
            result = await call(handler, record.payload, ctx)
        finally:
            self._calls.release()
        if began_ns:
            is_handled = result.status is Status.OK
            self._traces.hop(
                "sink.handled" if is_handled else "sink.failed",
                trace,
                began_ns=began_ns,
                is_error=not is_handled,
                message_id=record.message_id.hex(),
                device_id=record.device_id,
                attempt=attempt,
                status=result.status.label,
            )
        return result

    async def _bury(self, record: UplinkRecord, attempts: int, result: Result) -> bool:
        """Lays the record among the dead letters, trying while the log is away; False where a stop came first."""
        error = f"{result.status.label} in attempt {attempts}: {result.error}"
        failures = 0
        while True:
            try:
                await self._log.bury(self._settings.consumer, record, error)
                break
            except StoreUnavailable:
                if self._is_stopping.is_set():
                    return False
                failures += 1
                await self._rest(failures)
        self.counts.buried += 1
        logger.warning(
            "a message became a dead letter: %s",
            error,
            extra={
                "trace.id": record.trace[:16].hex(),
                "longwire.kind": presentable(record.kind),
                "longwire.device_id": presentable(record.device_id),
                "longwire.message_id": message_id_text(record.message_id),
                "longwire.offset": record.offset,
            },
        )
        return True

    def _has_more_than_its_share(self, lane: Lane) -> bool:
        return len(lane) > self._settings.fair_share and self._window.is_full

    async def _rest(self, failures: int) -> None:
        """Pauses after a failure, unless a stop has been asked for."""
        if not self._is_stopping.is_set():
            await self._interruptible(self._sleep(self._backoff_s(failures)))

    async def _interruptible(self, waiting: Awaitable[object]) -> None:
        """Waits for what a stop need not wait for: it cancels the task, which has nothing under way."""
        task = asyncio.current_task()
        assert task is not None
        self._resting.add(task)
        try:
            await waiting
        finally:
            self._resting.discard(task)

    def _backoff_s(self, failures: int) -> float:
        settings = self._settings
        longest = min(settings.retry_max_s, settings.retry_base_s * 2.0 ** min(failures - 1, 63))
        return longest * self._random.uniform(0.5, 1.0)

    # The end

    async def _let_calls_finish(self) -> None:
        """Waits for the handlers that run, but no longer than ``stop_within_s``; then they are cancelled."""
        for task in tuple(self._resting):
            task.cancel()
        if running := tuple(self._lane_tasks):
            await self._within(self._settings.stop_within_s, _ended(running))
        if self._lane_tasks:
            logger.warning("%d handlers were cut off by the stop; their records come again", len(self._lane_tasks))
        for task in tuple(self._lane_tasks):
            task.cancel()

    # The cursor

    async def _keep_flushing(self) -> None:
        failures = 0
        while True:
            await self._window.moved()
            if await self._flush():
                failures = 0
                await self._sleep(self._settings.flush_every_s)
            else:
                failures += 1
                if failures == 1:
                    logger.warning("the cursor of the uplink log cannot be written; trying on")
                await self._sleep(self._backoff_s(failures))

    async def _flush(self) -> bool:
        cursor = self._window.cursor
        try:
            await self._log.flush(self._settings.consumer, cursor)
        except StoreUnavailable:
            return False
        self.counts.flushed += 1
        self._window.flushed(cursor)
        return True

    async def _flush_a_last_time(self) -> None:
        if not self._window.is_flushed and not await self._within(self._settings.last_flush_within_s, self._flush()):
            logger.warning("the cursor could not be written at stop: records that are done come again")

    async def _within(self, seconds: float, work: Coroutine[object, object, T]) -> T | None:
        """What the work returns; None where it took longer, and then it is cancelled."""
        working = asyncio.create_task(work)
        deadline = asyncio.create_task(_completed(self._sleep(seconds)))
        try:
            await asyncio.wait((working, deadline), return_when=asyncio.FIRST_COMPLETED)
            return working.result() if working.done() else None
        finally:
            working.cancel()
            deadline.cancel()
            await asyncio.gather(working, deadline, return_exceptions=True)


async def _ended(tasks: tuple[asyncio.Task[None], ...]) -> None:
    await asyncio.wait(tasks)


async def _completed(waiting: Awaitable[None]) -> None:
    await waiting
