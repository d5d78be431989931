"""What the push room stands on, in memory: nodes that write what they are told, and work that waits for workers."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from pyroaring import BitMap

from longwire.adapters.embedded.registry import EmbeddedRegistry
from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.bitmaps import above
from longwire.errors import StoreUnavailable
from longwire.model import Envelope, NodeInfo
from longwire.operations_model import NodeReport, SessionView
from longwire.ports.link import Called, Sent
from longwire.ports.push_work import Due
from longwire.push_model import (
    Broadcasted,
    BroadcastOrder,
    Claim,
    Dispatched,
    Goes,
    Priority,
    PushMessage,
    SegmentReceipts,
)
from longwire.reasons import CloseCode, Status
from longwire.testing import ManualClock

HANG_GUARD_S = 20.0
MESSAGE = PushMessage(bytes(16), "news", b"hello", 0)


class Write(NamedTuple):
    """What a node was told to write, and when."""

    at_ms: int
    node_id: str
    order: BroadcastOrder


class Nodes:
    """ports.link.Link over nodes that are only lists of who is there; with the route table and registry they are in."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.routes = EmbeddedRoutes(clock)
        self.registry = EmbeddedRegistry()
        self.writes: list[Write] = []
        self.ended: set[int] = set()
        self.faults: dict[str, Exception] = {}
        """What a node's broadcasts raise."""
        self.deaf: set[str] = set()
        """Nodes that never answer."""
        self.noted: list[SegmentReceipts] = []
        """What nodes give back at the end of a push."""
        self.sent: list[tuple[Envelope, float]] = []
        self.outcome: Status = Status.OK
        self.acking: set[int] = set()
        """Devices that acknowledge one-to-one messages at once."""
        self.caught_up = BitMap()
        self.before_write: asyncio.Event | None = None
        self._known: set[tuple[int, bytes]] = set()

    async def add(self, node_id: str, *device_nos: int) -> None:
        await self.registry.register(NodeInfo(node_id, "h", 1, None, "ws://h:1"))
        await self.routes.attach(node_id, device_nos)

    @property
    def written(self) -> BitMap:
        """Everybody who was written to by now."""
        return BitMap.union(BitMap(), *(write.order.receivers for write in self.writes))

    async def broadcast(self, node_id: str, order: BroadcastOrder) -> Broadcasted:
        if node_id in self.deaf:
            await asyncio.Event().wait()
        if node_id in self.faults:
            raise self.faults[node_id]
        if order.push_no in self.ended:
            return Broadcasted(BitMap(), is_refused=True)
        self.writes.append(Write(self.clock.now_ms(), node_id, order))
        return Broadcasted(order.receivers.copy())

    async def end_push(self, push_no: int) -> list[SegmentReceipts]:
        self.ended.add(push_no)
        noted, self.noted = self.noted, []
        return noted

    async def catch_up(self, devices: BitMap) -> None:
        self.caught_up |= devices

    async def send(self, envelope: Envelope, wait_ack_s: float = 0.0) -> Sent:
        self.sent.append((envelope, wait_ack_s))
        if self.outcome is not Status.OK:
            return Sent(self.outcome)
        key = (envelope.sender_no, envelope.message_id)
        if key in self._known:
            return Sent(Status.DUPLICATE)
        self._known.add(key)
        routes = await self.routes.find(envelope.receivers)
        online = tuple(no for no, route in zip(envelope.receivers, routes, strict=True) if route is not None)
        away = tuple(no for no in envelope.receivers if no not in online)
        return Sent(Status.OK, online, away, tuple(no for no in online if no in self.acking))

    async def send_many(self, envelopes: Sequence[Envelope]) -> list[Sent]:
        return [await self.send(envelope) for envelope in envelopes]

    def number_of(self, device_id: str) -> int | None:
        return None

    async def sessions(self, device_nos: Sequence[int]) -> list[SessionView | None]:
        routes = await self.routes.find(device_nos)
        now_ms = self.clock.now_ms()
        return [
            None if route is None else SessionView(no, "s", route.node_id, 2, now_ms - 1_000, now_ms, "native")
            for no, route in zip(device_nos, routes, strict=True)
        ]

    async def close_session(self, device_no: int, code: CloseCode, reason: str) -> bool:
        raise NotImplementedError

    async def call(
        self, device_no: int, command_id: bytes, method: str, payload: bytes, timeout_ms: int, trace: bytes = b""
    ) -> Called:
        raise NotImplementedError

    async def report(self, node_id: str) -> NodeReport | None:
        raise NotImplementedError

    def session_count(self) -> int:
        raise NotImplementedError


class Given(NamedTuple):
    """A lease that was given back."""

    at_ms: int
    not_before_ms: int
    error: str


class Part:
    """A segment of a push as MemoryWork keeps it."""

    def __init__(self, push_no: int, segment: int, targets: BitMap, rate: int | None, expires_at_ms: int) -> None:
        self.push_no, self.segment, self.rest = push_no, segment, targets
        self.rate, self.expires_at_ms = rate, expires_at_ms
        self.priority = Priority.NORMAL
        self.cursor = -1
        self.lease_no = 0
        self.free_at_ms = 0
        self.is_leased = self.is_done = self.is_paused = False
        self.written = BitMap()
        self.online = self.handled = 0


class MemoryWork:
    """ports.push_work.PushWork in memory: leases and what was told of them, and nothing of what follows."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.parts: list[Part] = []
        self.told: list[Dispatched] = []
        self.given_back: list[Given] = []
        self.is_away = False
        self.away_for = 0
        """How many calls of ``dispatched`` fail yet."""

    def add(
        self, targets: BitMap, *, push_no: int = 1, segment: int = 0, rate: int | None = None, ttl_s: float = 60
    ) -> Part:
        part = Part(push_no, segment, targets, rate, self.clock.now_ms() + round(ttl_s * 1000))
        self.parts.append(part)
        return part

    async def wait(self, within_s: float) -> None:
        await self.clock.sleep(within_s)

    async def claim(self, worker: str, limit: int, lease_ms: int, now_ms: int) -> list[Claim]:
        self._need_store()
        claims: list[Claim] = []
        for part in sorted(self.parts, key=lambda part: (part.priority, part.push_no, part.segment)):
            if len(claims) == limit:
                break
            if part.is_done or part.is_paused or part.free_at_ms > now_ms or self._is_paced_elsewhere(part, now_ms):
                continue
            part.lease_no += 1
            part.is_leased, part.free_at_ms = True, now_ms + lease_ms
            claims.append(
                Claim(
                    part.push_no,
                    part.segment,
                    part.lease_no,
                    part.free_at_ms,
                    MESSAGE,
                    part.expires_at_ms,
                    part.priority,
                    False,
                    part.rate,
                    part.cursor,
                    above(part.rest, max(part.cursor, 0)) if part.cursor >= 0 else part.rest.copy(),
                )
            )
        return claims

    async def dispatched(self, done: Dispatched, now_ms: int) -> Goes:
        if self.away_for:
            self.away_for -= 1
            raise StoreUnavailable("the store is away")
        self._need_store()
        self.told.append(done)
        part = self._part(done.push_no, done.segment)
        part.written |= done.written
        if part.lease_no != done.lease_no or not part.is_leased:
            return Goes(False)
        part.online += done.online
        part.handled += done.handled
        part.cursor, part.is_done = done.cursor, done.is_done
        part.is_leased = not done.is_done and not part.is_paused
        part.free_at_ms = done.lease_until_ms if part.is_leased else 0
        return Goes(part.is_leased or done.is_done, part.rate)

    async def give_back(self, claim: Claim, not_before_ms: int, error: str) -> None:
        self._need_store()
        self.given_back.append(Given(self.clock.now_ms(), not_before_ms, error))
        part = self._part(claim.push_no, claim.segment)
        if part.is_leased and part.lease_no == claim.lease_no:
            part.is_leased, part.free_at_ms = False, not_before_ms

    async def due(self, now_ms: int, lease_ms: int, limit: int) -> Sequence[Due]:
        raise NotImplementedError

    async def begin(self, due: Due, devices: BitMap, unresolved: int, sample: Sequence[str], now_ms: int) -> bool:
        raise NotImplementedError

    async def give_up(self, due: Due, reason: str, now_ms: int) -> None:
        raise NotImplementedError

    async def close(self, now_ms: int, limit: int) -> int:
        raise NotImplementedError

    async def half_canceled(self, limit: int) -> Sequence[int]:
        raise NotImplementedError

    async def next_moment_ms(self) -> int | None:
        raise NotImplementedError

    def _part(self, push_no: int, segment: int) -> Part:
        return next(part for part in self.parts if (part.push_no, part.segment) == (push_no, segment))

    def _is_paced_elsewhere(self, part: Part, now_ms: int) -> bool:
        return part.rate is not None and any(
            other.push_no == part.push_no and other.is_leased and other.free_at_ms > now_ms for other in self.parts
        )

    def _need_store(self) -> None:
        if self.is_away:
            raise StoreUnavailable("the store is away")
