"""The worker: claims segments under leases and has the nodes write them.

    claim ──► who is where ──► a part, as the pace allows ──► link.broadcast to each node ──► store what was written
                   ▲                                                                             │
                   └──────────────────── lease goes on, rate as it is now ◄──────────────────────┘

A worker that dies leaves leases that run out; the segments are done again, nodes and devices drop what they have.
Claims of paced pushes sleep most of the time: they do not count among the segments that are written at once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from msgspec import Struct
from msgspec.structs import replace
from pyroaring import BitMap

from longwire.bitmaps import above
from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.ports.link import Link
from longwire.ports.push_work import PushWork
from longwire.ports.registry import Registry
from longwire.ports.routes import RouteTable
from longwire.push.pacing import Pacing, first
from longwire.push.whereabouts import whereabouts
from longwire.push_model import BroadcastOrder, Claim, Dispatched, Goes
from longwire.traces import CALL, NO_TRACES, Call, Traces, is_sampled

logger = logging.getLogger("longwire.push")

Sleep = Callable[[float], Awaitable[None]]

_RETRY_S = 1.0
_LONGEST_BACKOFF_MS = 60_000
_AGAIN_MS = 2_000
_REMEMBERED_FAILURES = 10_000


class WorkerSettings(Struct, frozen=True):
    """The bounds of one worker."""

    segments: int = 4
    """Segments of pushes without a rate that are written at a time; each holds at most 16 KiB of bitmaps."""
    paced: int = 64
    """Pushes with a rate at a time; further ones wait. Each costs four commits a second."""
    lease_ms: int = 30_000
    poll_s: float = 1.0
    """A claim is tried that often where nobody says that there is work."""
    link_timeout_s: float = 10.0
    stop_within_s: float = 1.0


class _Outcome(Struct):
    """What the nodes made of a part of a segment."""

    written: BitMap
    online: int
    is_refused: bool
    error: str


class Worker:
    """One worker; ``run`` is its owner."""

    def __init__(
        self,
        name: str,
        work: PushWork,
        routes: RouteTable,
        registry: Registry,
        link: Link,
        clock: Clock,
        settings: WorkerSettings | None = None,
        sleep: Sleep = asyncio.sleep,
        traces: Traces = NO_TRACES,
    ) -> None:
        self.segments = 0
        """Segments that were written to their end here."""
        self.failed_attempts = 0
        self._traces = traces
        self._name = name
        self._work = work
        self._routes = routes
        self._registry = registry
        self._link = link
        self._clock = clock
        self._settings = settings or WorkerSettings()
        self._sleep = sleep
        self._pacing = Pacing(clock, sleep)
        self._running: dict[asyncio.Task[None], Claim] = {}
        self._failures: dict[tuple[int, int], int] = {}
        self._ended = asyncio.Event()
        self._has_left = asyncio.Event()
        self._is_running = False
        self._is_stopping = False
        self._is_away = False

    async def run(self) -> None:
        """Works until ``stop``. Cancelling this is a crash: the leases run out by themselves."""
        self._is_running = True
        try:
            while not self._is_stopping:
                self._ended.clear()
                room = self._settings.segments - sum(claim.rate_per_s is None for claim in self._running.values())
                if room <= 0 or await self._claim(room) < room:
                    await self._something_new(room > 0)
            await self._leave()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            self._is_running = False
            self._has_left.set()

    async def stop(self) -> None:
        """Claims no more, lets what runs go on for ``stop_within_s``, gives back the rest; returns when ``run`` has."""
        self._is_stopping = True
        self._ended.set()
        if self._is_running:
            await self._has_left.wait()

    # Claims

    async def _claim(self, room: int) -> int:
        """Takes up to ``room`` segments; how many came."""
        settings, now_ms = self._settings, self._clock.now_ms()
        try:
            claims = await self._work.claim(self._name, room, settings.lease_ms, now_ms)
        except StoreUnavailable as error:
            if not self._is_away:
                logger.warning("push worker %s waits for the store: %s", self._name, error)
            self._is_away = True
            await self._sleep(_RETRY_S)
            return 0
        self._is_away = False
        self._pacing.forget_idle()
        for claim in claims:
            if claim.rate_per_s is not None and self._paced() >= settings.paced:
                await self._give_back(claim, now_ms + round(_RETRY_S * 1000), "")
                continue
            task = asyncio.create_task(self._see_through(claim))
            self._running[task] = claim
            task.add_done_callback(self._has_ended)
        return len(claims)

    def _paced(self) -> int:
        return sum(claim.rate_per_s is not None for claim in self._running.values())

    def _has_ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._ended.set()

    async def _something_new(self, has_room: bool) -> None:
        """Waits until a claim may bring something: a segment has ended, or there is work and room for it."""
        waits: list[asyncio.Task[object]] = [asyncio.create_task(self._ended.wait())]
        if has_room:
            waits.append(asyncio.create_task(self._work.wait(self._settings.poll_s)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _leave(self) -> None:
        """What does not end in time goes back, to be done again by whoever comes."""
        if self._running:
            await asyncio.wait(list(self._running), timeout=self._settings.stop_within_s)
        left = dict(self._running)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for claim in left.values():
            await self._give_back(claim, 0, "")

    # One segment

    async def _see_through(self, claim: Claim) -> None:
        message = claim.message
        if self._traces.has_marks:
            trace = self._traces.marked(message.trace, claim.targets, message.message_id)
            claim.message = message = replace(message, trace=trace)
        if message.trace:
            CALL.set(Call(trace=message.trace))  # of this task
        try:
            await self._dispatch(claim)
        except Exception:
            logger.exception("segment %d of push %d failed", claim.segment, claim.push_no)
            await self._fail(claim, "internal error")

    async def _dispatch(self, claim: Claim) -> None:
        """Writes the segment, part by part where it is paced, until it is done or no longer ours."""
        targets, cursor = claim.targets, claim.cursor
        while True:
            allowed = await self._turn(claim) if targets else None
            if self._is_stopping:
                await self._give_back(claim, 0, "")
                return
            try:
                here = await whereabouts(self._routes, self._registry, claim.segment)
            except StoreUnavailable as error:
                logger.warning("push %d, segment %d waits for the route table: %s", claim.push_no, claim.segment, error)
                await self._give_back(claim, self._clock.now_ms() + _AGAIN_MS, "")
                return
            part, outcome = await self._write(claim, targets, here, allowed)
            is_whole = not outcome.error and not outcome.is_refused
            is_done = is_whole and len(part) == len(targets)
            if is_whole and part:
                cursor = part.max()
            goes = await self._report(
                claim,
                Dispatched(
                    claim.push_no,
                    claim.segment,
                    claim.lease_no,
                    outcome.written,
                    outcome.online if is_whole else 0,
                    cursor,
                    len(part) if is_whole else 0,
                    is_done,
                    0,
                ),
            )
            self.segments += is_done
            if is_done or not goes.is_held:
                self._failures.pop((claim.push_no, claim.segment), None)
                return
            if outcome.error:
                await self._fail(claim, outcome.error)
                return
            if outcome.is_refused:
                # The node knows more than the store yet: of a withdrawal that is not committed, of a later lease.
                await self._give_back(claim, self._clock.now_ms() + _AGAIN_MS, "")
                return
            targets = above(targets, cursor)
            claim.rate_per_s = goes.rate_per_s

    async def _turn(self, claim: Claim) -> int | None:
        """How many devices may be handed to nodes now, once any may; None: no bound."""
        return None if claim.rate_per_s is None else await self._pacing.turn(claim.push_no, claim.rate_per_s)

    async def _write(
        self, claim: Claim, targets: BitMap, here: dict[str, BitMap], allowed: int | None
    ) -> tuple[BitMap, _Outcome]:
        """Has a part of the targets written by the nodes that hold them; the part, and what became of it."""
        ttl_left_ms = claim.expires_at_ms - self._clock.now_ms()
        if ttl_left_ms <= 0:
            return targets, _Outcome(BitMap(), 0, False, "")
        part = targets if allowed is None else first(targets, targets & BitMap.union(BitMap(), *here.values()), allowed)
        orders = [(node_id, receivers) for node_id, devices in here.items() if (receivers := part & devices)]
        outcomes = await asyncio.gather(
            *(self._broadcast(node_id, claim, receivers, ttl_left_ms) for node_id, receivers in orders)
        )
        online = sum(len(receivers) for _, receivers in orders)
        if claim.rate_per_s is not None:
            self._pacing.spend(claim.push_no, online)
        return part, _Outcome(
            BitMap.union(BitMap(), *(outcome.written for outcome in outcomes)),
            online,
            any(outcome.is_refused for outcome in outcomes),
            "; ".join(outcome.error for outcome in outcomes if outcome.error),
        )

    async def _broadcast(self, node_id: str, claim: Claim, receivers: BitMap, ttl_left_ms: int) -> _Outcome:
        order = BroadcastOrder(
            claim.push_no, claim.segment, claim.lease_no, claim.message, ttl_left_ms, claim.priority, receivers
        )
        within_s = self._settings.link_timeout_s
        began_ns = self._traces.now_ns()
        try:
            async with asyncio.timeout(within_s):
                done = await self._link.broadcast(node_id, order)
        except TimeoutError:
            outcome = _Outcome(BitMap(), 0, False, f"node {node_id} did not answer within {within_s:g} s")
        except StoreUnavailable as error:
            outcome = _Outcome(BitMap(), 0, False, f"node {node_id}: {error}")
        else:
            outcome = _Outcome(done.written, len(receivers), done.is_refused, "")
        if is_sampled(claim.message.trace):
            self._traces.hop(
                "push.dispatched",
                claim.message.trace,
                began_ns=began_ns,
                is_error=bool(outcome.error),
                push_id=claim.message.message_id.hex(),
                segment=claim.segment,
                to_node=node_id,
                receivers=len(receivers),
                written=len(outcome.written),
            )
        return outcome

    # What the store is told

    async def _report(self, claim: Claim, done: Dispatched) -> Goes:
        """Stores what was done, trying while the lease lasts; the lease goes on with it."""
        while True:
            now_ms = self._clock.now_ms()
            done.lease_until_ms = now_ms + self._settings.lease_ms
            try:
                goes = await self._work.dispatched(done, now_ms)
            except StoreUnavailable as error:
                logger.warning("segment %d of push %d is not stored yet: %s", claim.segment, claim.push_no, error)
                if now_ms >= claim.lease_until_ms:
                    return Goes(False)
                await self._sleep(_RETRY_S)
            else:
                claim.lease_until_ms = done.lease_until_ms
                return goes

    async def _fail(self, claim: Claim, error: str) -> None:
        """Gives the segment back to be tried again after 1, 2, 4 … 60 s."""
        self.failed_attempts += 1
        key = (claim.push_no, claim.segment)
        if len(self._failures) >= _REMEMBERED_FAILURES:
            self._failures.clear()
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        logger.warning("segment %d of push %d was not written: %s", claim.segment, claim.push_no, error)
        wait_ms = min(_LONGEST_BACKOFF_MS, 1_000 << min(failures - 1, 16))
        await self._give_back(claim, self._clock.now_ms() + wait_ms, error)

    async def _give_back(self, claim: Claim, not_before_ms: int, error: str) -> None:
        try:
            await self._work.give_back(claim, not_before_ms, error)
        except StoreUnavailable as away:
            logger.warning("the lease of segment %d of push %d runs out: %s", claim.segment, claim.push_no, away)
