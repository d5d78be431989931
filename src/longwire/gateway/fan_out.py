"""One message to many: rounds in which what waits is joined once and written once to each connection.

    spread, deliver ─► lane high | normal | low ─► round ─► groups of common receivers ─► slices of 256 ─► write

What one turn of the loop brings, and what comes while a round is being written, waits for the next round of its
lane: a receiver of eight messages gets one write. Between slices the loop runs, so that acknowledgements, heartbeats
and one-to-one messages, which never come here, go on; and a higher lane goes first. A connection that does not read
is left out: a push comes to it when it has drained, an at-most-once message is dropped and counted.
"""

import asyncio
import logging
from array import array
from collections import deque
from itertools import islice
from typing import NamedTuple

from pyroaring import BitMap

from longwire.gateway.broadcasts import Broadcast, Broadcasts, Frames
from longwire.gateway.counters import Counters
from longwire.gateway.hub import Hub
from longwire.gateway.tasks import Tasks
from longwire.net.connection import Flavour
from longwire.push_model import Priority
from longwire.traces import NO_TRACES, Traces, is_sampled
from longwire.wire.packets import Push

log = logging.getLogger(__name__)

_SLICE = 256
_MAX_JOBS = 64
_MAX_GROUPS = 32
# What a round writes to a connection at once: as much as it may have unsent before it counts as not reading.
_MAX_JOINED_BYTES = 65_536
_MAX_WAITING_BYTES = 16 << 20
# What a message takes beside its payload.
_OVERHEAD_BYTES = 256
# Of one message's marked receivers so many are told of.
_MAX_TOLD = 100


class Job:
    """A message and its receivers, waiting for a round or in one."""

    __slots__ = ("broadcast", "done", "frames", "receivers", "skipped", "written")

    def __init__(self, frames: Frames, receivers: BitMap, broadcast: Broadcast | None = None) -> None:
        self.frames = frames
        self.receivers = receivers
        self.broadcast = broadcast
        """None: at most once, nobody asks who got it."""
        self.done: asyncio.Future[None] | None = None
        self.written = BitMap()
        self.skipped = BitMap()

    @property
    def size(self) -> int:
        return len(self.frames.packet.payload) + _OVERHEAD_BYTES


class _Group(NamedTuple):
    """Receivers whom the same jobs are for."""

    receivers: BitMap
    jobs: list[Job]


class FanOut:
    """The lanes of this node."""

    def __init__(
        self, hub: Hub, broadcasts: Broadcasts, counters: Counters, tasks: Tasks, traces: Traces = NO_TRACES
    ) -> None:
        self._traces = traces
        self._hub = hub
        self._broadcasts = broadcasts
        self._counters = counters
        self._tasks = tasks
        self._lanes: tuple[deque[Job], ...] = tuple(deque() for _ in Priority)
        self.waiting_bytes = 0
        """What has not begun to be written."""
        self._written = 0
        """Writes since the loop last ran."""
        self._is_running = False

    @property
    def is_full(self) -> bool:
        """Whether as many bytes wait as may: nothing more is to be spread."""
        return self.waiting_bytes >= _MAX_WAITING_BYTES

    def spread(
        self,
        message: Push,
        handle: int,
        receivers: BitMap,
        trace: bytes = b"",
        lane: Priority = Priority.NORMAL,
    ) -> None:
        """Writes a message, at most once, to those of the receivers who are online when its round begins.

        ``receivers`` must not change any more; the same object for several messages saves comparing.
        """
        self._add(Job(Frames(message, handle, 0, trace), receivers), lane)

    async def deliver(self, broadcast: Broadcast, receivers: BitMap, lane: Priority) -> BitMap:
        """Writes a push to all receivers who are online, and gives those who were written to in their session.

        Who connects meanwhile is among them, who does not read is not. Cancelling does not take anything back.
        """
        job = Job(broadcast.frames, receivers, broadcast)
        if not receivers or self._broadcasts.is_over(broadcast):
            return job.written
        job.done = asyncio.get_running_loop().create_future()
        broadcast.jobs += 1
        self._add(job, lane)
        await job.done
        return job.written

    def _add(self, job: Job, lane: Priority) -> None:
        self._lanes[lane].append(job)
        self.waiting_bytes += job.size
        if not self._is_running:
            self._is_running = True
            self._tasks.start(self._run(), "a fan-out")

    async def _run(self) -> None:
        try:
            while (lane := self._highest(len(self._lanes))) is not None:
                try:
                    await self._round(lane)
                except Exception:
                    log.exception("a round of the fan-out failed; who was not written to gets it by catching up")
                await self._let_others(lane)
        finally:
            self._is_running = False
            for jobs in self._lanes:
                for job in jobs:
                    _end(job)
                jobs.clear()
            self.waiting_bytes = 0

    def _highest(self, below: int) -> int | None:
        """The highest lane in which anything waits, of those before ``below``."""
        for lane in range(below):
            if self._lanes[lane]:
                return lane
        return None

    async def _round(self, lane: int) -> None:
        self._counters.fan_out_rounds += 1
        jobs, groups = self._take(self._lanes[lane])
        try:
            for group in groups:
                await self._write(group, lane)
            for job in jobs:
                # Those who connected since it began, until there are none.
                while job.broadcast is not None and (late := self._due(job)):
                    await self._write(_Group(late, [job]), lane)
        finally:
            for job in jobs:
                self._tell(job)
                _end(job)

    def _tell(self, job: Job) -> None:
        """What a job that was traced did, in sum; and each of its receivers who is marked."""
        frames, traces = job.frames, self._traces
        is_push = job.broadcast is not None
        if is_sampled(frames.trace):
            traces.hop(
                "push.fanned_out" if is_push else "message.fanned_out",
                frames.trace,
                message_id=frames.packet.message_id.hex(),
                receivers=len(job.receivers),
                online=len(job.written) if is_push else job.receivers.intersection_cardinality(self._hub.online),
            )
        if traces.has_marks:
            written = job.written if is_push else job.receivers & self._hub.online
            for device_no in islice(written & traces.marks.devices, _MAX_TOLD):
                self._broadcasts.tell_written(frames, device_no, "fan-out")

    def _take(self, waiting: deque[Job]) -> tuple[list[Job], list[_Group]]:
        """The jobs of the next round, oldest first, and their receivers, divided by what each is to get."""
        self._broadcasts.settle()
        jobs: list[Job] = []
        groups: list[_Group] = []
        size = 0
        while waiting and len(jobs) < _MAX_JOBS and size < _MAX_JOINED_BYTES:
            job = waiting[0]
            refined = _refine(groups, job, self._due(job) if job.broadcast is not None else job.receivers)
            if jobs and len(refined) > _MAX_GROUPS:
                break
            waiting.popleft()
            jobs.append(job)
            groups = refined
            size += job.size
            self.waiting_bytes -= job.size
        return jobs, groups

    def _due(self, job: Job) -> BitMap:
        """Who of a push's receivers is to be written to now."""
        broadcast = job.broadcast
        assert broadcast is not None
        if self._broadcasts.is_over(broadcast):
            return BitMap()
        self._broadcasts.settle()
        online = job.receivers & self._hub.online
        # Written to in this session before, by catching up, or because the segment is done again after all.
        job.written |= online & (broadcast.outstanding | broadcast.acked | broadcast.flushing)
        return online - job.written - job.skipped

    async def _write(self, group: _Group, lane: int) -> None:
        """Writes the group's messages, joined, slice by slice."""
        numbers = (group.receivers & self._hub.online).to_array()
        jobs = group.jobs
        frames: list[bytes | None] = [None] * len(Flavour)
        find = self._hub.find
        for at in range(0, len(numbers), _SLICE):
            if self._written >= _SLICE:
                await self._let_others(lane)
            if any(self._is_over(job) for job in jobs):
                jobs = [job for job in jobs if not self._is_over(job)]
                frames = [None] * len(Flavour)
                if not jobs:
                    return
            self._broadcasts.settle()
            part = numbers[at : at + _SLICE]
            gone: list[int] = []
            clogged: list[int] = []
            for device_no in part:
                session = find(device_no)
                if session is None:
                    gone.append(device_no)
                    continue
                connection = session.connection
                if connection.is_clogged:
                    clogged.append(device_no)
                    continue
                data = frames[connection.flavour]
                if data is None:
                    data = frames[connection.flavour] = b"".join([job.frames.of(connection.flavour) for job in jobs])
                connection.write(data)
            self._written += len(part)
            self._note(jobs, part, gone, clogged)

    async def _let_others(self, lane: int) -> None:
        """Lets the loop run, and then what waits in higher lanes."""
        self._written = 0
        await asyncio.sleep(0)
        while (higher := self._highest(lane)) is not None:
            await self._round(higher)

    def _is_over(self, job: Job) -> bool:
        return job.broadcast is not None and self._broadcasts.is_over(job.broadcast)

    def _note(self, jobs: list[Job], part: "array[int]", gone: list[int], clogged: list[int]) -> None:
        """Keeps who of the slice was written to; ``gone`` and ``clogged`` were not."""
        counters = self._counters
        count = len(part) - len(gone) - len(clogged)
        written: BitMap | None = None
        for job in jobs:
            broadcast = job.broadcast
            if broadcast is None:
                counters.pushes += count
                counters.dropped += len(clogged)
                continue
            if written is None:
                written = BitMap(part, optimize=False)
                written -= BitMap(gone + clogged)
            job.written |= written
            self._broadcasts.written(broadcast, written)
            counters.broadcast_written += count
            if clogged:
                skipped = BitMap(clogged)
                job.skipped |= skipped
                self._broadcasts.skipped |= skipped
                counters.broadcast_skipped += len(clogged)


def _refine(groups: list[_Group], job: Job, receivers: BitMap) -> list[_Group]:
    """The groups, divided further where the job is for some of one and not for others."""
    refined: list[_Group] = []
    rest = receivers
    for group in groups:
        if group.receivers is rest:
            refined.append(_Group(rest, [*group.jobs, job]))
            rest = BitMap()
            continue
        common = group.receivers & rest
        if not common:
            refined.append(group)
            continue
        refined.append(_Group(common, [*group.jobs, job]))
        others = group.receivers - common
        if others:
            refined.append(_Group(others, group.jobs))
        rest = rest - common
    if rest:
        refined.append(_Group(rest, [job]))
    return refined


def _end(job: Job) -> None:
    if job.broadcast is not None:
        job.broadcast.jobs -= 1
    if job.done is not None and not job.done.done():
        job.done.set_result(None)
