"""Pushes under way on this node: their handles, their frames, who has them and who acknowledged.

    fan-out, catch-up ─► outstanding ─► ACK ─► acked ─┐
                catch-up ─► noted ────────────────────┴─► flush, each tick ─► the log of receipts

A push has one odd handle and one frame a flavour, whoever gets it; a device is one bit in its bitmaps, and nothing
of it lies on a connection. ``outstanding`` are those whose present session was written to: a device that leaves is
taken out before anybody reads or adds to it again. So memory grows with what is not acknowledged here, and never
with live pushes times devices.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence

from pyroaring import BitMap

from longwire.bitmaps import split
from longwire.clock import Clock
from longwire.gateway.counters import Counters
from longwire.gateway.hub import Hub
from longwire.gateway.session import Session
from longwire.histogram import Histogram
from longwire.net.connection import Flavour, encode
from longwire.net.wheel import TICK_S
from longwire.ports.receipts import ReceiptLog
from longwire.push_model import PushMessage, SegmentReceipts
from longwire.reasons import Status
from longwire.traces import NO_TRACES, Traces
from longwire.wire.packets import FLAG_RECEIPT, Push

# An entry outlives the last that was done with it, so that late acknowledgements find it.
_KEPT_S = 60.0
_ENDED_KEPT_S = 600.0
# A segment is merged and stored at most so many times in so many seconds.
_FLUSHES = 4
_FLUSHES_WITHIN_S = 0.99
# A paced push is written in chunks; so many of a segment's are told apart when latencies are taken.
_CHUNKS = 16


class Frames:
    """A PUSH as the connections of each flavour get it: encoded once, when the first of them does."""

    __slots__ = ("_encoded", "_flags", "_handle", "packet", "trace")

    def __init__(self, packet: Push, handle: int, flags: int, trace: bytes) -> None:
        self.packet = packet
        self._handle = handle
        self._flags = flags
        self.trace = trace
        self._encoded: list[bytes | None] = [None] * len(Flavour)

    def of(self, flavour: int) -> bytes:
        """The bytes for connections of this flavour; the same object for all of them."""
        data = self._encoded[flavour]
        if data is None:
            data = self._encoded[flavour] = encode(flavour, self.packet, self._handle, self._flags, self.trace)
        return data


class Broadcast:
    """One push on this node. The bitmaps hold devices of all its segments."""

    __slots__ = (
        "acked",
        "aging",
        "began",
        "ended_at",
        "expires_at_ms",
        "flushed_at",
        "flushing",
        "frames",
        "handle",
        "is_dirty",
        "is_flushing",
        "jobs",
        "latency",
        "leases",
        "noted",
        "outstanding",
        "overdue",
        "push_no",
        "touched_at",
    )

    def __init__(self, push_no: int, handle: int, message: PushMessage, expires_at_ms: int, now: float) -> None:
        self.push_no = push_no
        self.handle = handle
        packet = Push(
            message.message_id,
            message.kind,
            message.sender,
            message.payload,
            message.sent_at_ms,
            message.collapse_key,
            message.to,
        )
        self.frames = Frames(packet, handle, FLAG_RECEIPT, message.trace)
        self.expires_at_ms = expires_at_ms
        self.outstanding = BitMap()
        """Written to in the session they have now, and not acknowledged."""
        self.aging = BitMap()
        """Those who were outstanding at the last look."""
        self.overdue = BitMap()
        """Outstanding so long that catching up may write to them again."""
        self.acked = BitMap()
        """Acknowledged since the last flush."""
        self.noted = BitMap()
        """Written to by catching up since the last flush; what a fan-out wrote its caller reports."""
        self.flushing = BitMap()
        """Acknowledged, and given to the log with the last flush."""
        self.is_dirty = False
        self.is_flushing = False
        self.flushed_at: deque[float] = deque(maxlen=_FLUSHES)
        """When the last flushes were."""
        self.latency = Histogram()
        self.began: dict[int, list[tuple[int, int]]] = {}
        """By segment, (the lowest device, when) of the last times that writing to it began."""
        self.leases: dict[int, int] = {}
        self.jobs = 0
        """Of the fan-out, waiting or running."""
        self.ended_at: float | None = None
        self.touched_at = now

    @property
    def is_ended(self) -> bool:
        """Cancelled or withdrawn: nothing of it is written any more."""
        return self.ended_at is not None

    def begin(self, segment: int, lowest: int, now_ms: int) -> None:
        """Devices of the segment from ``lowest`` on are written to from now."""
        times = self.began.setdefault(segment, [])
        times.append((lowest, now_ms))
        del times[:-_CHUNKS]

    def began_at(self, device_no: int) -> int | None:
        """When writing to the device's segment began, in ms; None where only catching up wrote to it."""
        for lowest, at_ms in reversed(self.began.get(device_no >> 16, ())):
            if device_no >= lowest:
                return at_ms
        return None


class Broadcasts:
    """The table of them. Handles are odd, start at random and skip those in use; one-to-one messages have even ones."""

    def __init__(
        self, hub: Hub, receipts: ReceiptLog, clock: Clock, counters: Counters, traces: Traces = NO_TRACES
    ) -> None:
        self._traces = traces
        self.skipped = BitMap()
        """Devices that a fan-out left out because they do not read."""
        self.latency = Histogram()
        """From writing to acknowledgement, since the start: of messages, and of pushes as far as the store has them."""
        self._hub = hub
        self._receipts = receipts
        self._clock = clock
        self._now_ms = clock.now_ms
        self._counters = counters
        self._by_handle: dict[int, Broadcast] = {}
        self._by_push: dict[int, Broadcast] = {}
        self._ended: dict[int, float] = {}
        self._dirty: list[Broadcast] = []
        self._left = BitMap()
        self._is_flushing_soon = False
        self._handle = random.getrandbits(32) | 1

    def __len__(self) -> int:
        return len(self._by_push)

    # Entering and ending

    def enter(self, push_no: int, message: PushMessage, expires_at_ms: int) -> Broadcast:
        """The push's entry, made where there is none. Not for one that has ended."""
        broadcast = self._by_push.get(push_no)
        if broadcast is None:
            broadcast = Broadcast(push_no, self._next_handle(), message, expires_at_ms, self._clock.monotonic())
            self._by_push[push_no] = self._by_handle[broadcast.handle] = broadcast
        broadcast.touched_at = self._clock.monotonic()
        return broadcast

    def find(self, push_no: int) -> Broadcast | None:
        return self._by_push.get(push_no)

    def is_over(self, broadcast: Broadcast) -> bool:
        """Whether nothing of it is to be written any more: it has ended, or its time to live has."""
        return broadcast.ended_at is not None or self._now_ms() >= broadcast.expires_at_ms

    def is_ended(self, push_no: int) -> bool:
        """Whether the push was cancelled or withdrawn; known for ten minutes."""
        return push_no in self._ended

    def end(self, push_no: int) -> list[SegmentReceipts]:
        """Nothing of the push is written from here on. What was gathered, with everybody it was written to.

        The entry stays for late acknowledgements, which go the usual way.
        """
        self._ended[push_no] = self._clock.monotonic()
        broadcast = self._by_push.get(push_no)
        if broadcast is None:
            return []
        broadcast.ended_at = self._clock.monotonic()
        self.settle()
        broadcast.noted |= broadcast.outstanding
        self._count(broadcast.latency)
        return self._gather(broadcast)

    # What happens to devices

    def written(self, broadcast: Broadcast, devices: BitMap) -> None:
        """A slice of a fan-out wrote to these devices, behind ``settle`` and without waiting since."""
        # A write may have closed the connection as a slow consumer.
        broadcast.outstanding |= devices - self._left if self._left else devices

    def noted(self, broadcast: Broadcast, device_no: int) -> None:
        """Catching up wrote to the device, behind ``settle`` and without waiting since."""
        broadcast.outstanding.add(device_no)
        broadcast.overdue.discard(device_no)
        broadcast.noted.add(device_no)
        self._mark(broadcast)
        if self._traces.has_marks and device_no in self._traces.marks.devices:
            self.tell_written(broadcast.frames, device_no, "catch-up")

    def tell_written(self, frames: Frames, device_no: int, way: str) -> None:
        """A marked device was written to."""
        session = self._hub.find(device_no)
        if session is not None:
            self._traces.hop(
                "message.written",
                self._traces.marked(frames.trace, (device_no,)),
                message_id=frames.packet.message_id.hex(),
                device_id=session.device_id,
                session_id=session.session_id,
                way=way,
            )

    def acked(self, session: Session, handle: int) -> bool:
        """ACK of an odd handle; False where the device was not written to under it, or has acknowledged."""
        window = session.window
        entry = None if window is None else window.unacked.pop(handle, None)
        broadcast = self._by_handle.get(handle)
        device_no = session.device_no
        if broadcast is None or device_no not in broadcast.outstanding:
            return False
        broadcast.outstanding.remove(device_no)
        broadcast.acked.add(device_no)
        began_ms = entry[2] if entry is not None else broadcast.began_at(device_no)
        if began_ms is not None:
            broadcast.latency.add(self._now_ms() - began_ms)
        if self._traces.has_marks and device_no in self._traces.marks.devices:
            self._traces.hop(
                "message.acked",
                self._traces.marked(broadcast.frames.trace, (device_no,)),
                began_ns=(began_ms or 0) * 1_000_000,
                message_id=broadcast.frames.packet.message_id.hex(),
                device_id=session.device_id,
                session_id=session.session_id,
            )
        if not broadcast.is_dirty:
            self._mark(broadcast)
        if not broadcast.outstanding and not broadcast.jobs and not self._is_flushing_soon:
            # Everybody has acknowledged: whoever watches the push need not wait for the tick.
            self._is_flushing_soon = True
            asyncio.get_running_loop().call_soon(self.flush)
        return True

    def left(self, device_no: int) -> None:
        """A session of the device has ended: nothing is outstanding for the next one."""
        if self._by_push:
            self._left.add(device_no)

    def settle(self) -> None:
        """Takes out of every entry who has left. To be called before anybody reads or adds to ``outstanding``."""
        if not self._left:
            return
        for broadcast in self._by_push.values():
            if broadcast.outstanding:
                broadcast.outstanding -= self._left
        self.skipped -= self._left
        self._left.clear()

    # Telling the store

    def flush(self, *, is_last: bool = False) -> None:
        """Gives what was gathered to the log; an entry of which a flush is under way waits for the next time.

        So does one that was flushed four times within the last second, unless this is the last flush.
        """
        self._is_flushing_soon = False
        due, self._dirty = self._dirty, []
        receipts: list[SegmentReceipts] = []
        now = self._clock.monotonic()
        for broadcast in due:
            times = broadcast.flushed_at
            is_too_soon = len(times) == _FLUSHES and now - times[0] < _FLUSHES_WITHIN_S and not is_last
            if broadcast.is_flushing or is_too_soon:
                self._dirty.append(broadcast)
                continue
            times.append(now)
            broadcast.is_dirty = False
            broadcast.flushing = broadcast.acked
            gathered = self._gather(broadcast)
            broadcast.is_flushing = bool(gathered)
            receipts += gathered
        if receipts:
            self._receipts.append(receipts, self._told)

    async def drain(self, within_s: float) -> None:
        """Flushes, and waits until everything is durable, for ``within_s`` at the most."""
        waited = 0.0
        self.flush(is_last=True)
        while waited < within_s and any(entry.is_dirty or entry.is_flushing for entry in self._by_push.values()):
            await asyncio.sleep(TICK_S / 10)
            waited += TICK_S / 10
            self.flush(is_last=True)

    def _told(self, receipts: Sequence[SegmentReceipts], status: Status) -> None:
        for receipt in receipts:
            broadcast = self._by_push[receipt.push_no]  # none is forgotten while it is flushing
            broadcast.is_flushing = False
            if status is Status.OK:
                self._count(receipt.latency)
            else:
                broadcast.acked |= receipt.acked
                broadcast.noted |= receipt.written
                broadcast.latency.merge(receipt.latency)
                self._mark(broadcast)
        if status is not Status.OK:
            self._counters.receipts_refused += 1

    def _gather(self, broadcast: Broadcast) -> list[SegmentReceipts]:
        acked, written, latency = split(broadcast.acked), split(broadcast.noted), broadcast.latency
        broadcast.acked, broadcast.noted, broadcast.latency = BitMap(), BitMap(), Histogram()
        receipts: list[SegmentReceipts] = []
        for segment in sorted(acked.keys() | written.keys()):
            # The latencies are the push's: they travel with its first segment.
            receipts.append(
                SegmentReceipts(
                    broadcast.push_no,
                    segment,
                    acked.get(segment, BitMap()),
                    written.get(segment, BitMap()),
                    Histogram() if receipts else latency,
                )
            )
        return receipts

    def _count(self, latency: Histogram) -> None:
        if latency.total:
            self.latency.merge(latency)

    def _mark(self, broadcast: Broadcast) -> None:
        if not broadcast.is_dirty:
            broadcast.is_dirty = True
            self._dirty.append(broadcast)

    # From time to time

    def age(self) -> None:
        """Who was outstanding at the last look and still is has had its time: catching up may write to it again."""
        self.settle()
        for broadcast in self._by_push.values():
            broadcast.overdue = broadcast.aging & broadcast.outstanding
            broadcast.aging = broadcast.outstanding.copy()

    def sweep(self) -> None:
        """Forgets entries that nobody waits for, and those that ended a minute ago, whatever they hold."""
        self.settle()
        now, now_ms = self._clock.monotonic(), self._now_ms()
        for broadcast in list(self._by_push.values()):
            is_in_use = broadcast.is_dirty or broadcast.is_flushing or broadcast.jobs
            if is_in_use or now - broadcast.touched_at < _KEPT_S:
                continue
            has_ended = broadcast.ended_at is not None and now - broadcast.ended_at >= _KEPT_S
            if has_ended or now_ms - broadcast.expires_at_ms >= _KEPT_S * 1000 or not broadcast.outstanding:
                del self._by_push[broadcast.push_no], self._by_handle[broadcast.handle]
        for push_no, ended_at in list(self._ended.items()):
            if now - ended_at >= _ENDED_KEPT_S:
                del self._ended[push_no]

    def _next_handle(self) -> int:
        while True:
            self._handle = self._handle + 2 & 0xFFFF_FFFF
            if self._handle not in self._by_handle:
                return self._handle
