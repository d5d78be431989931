"""The route table in Redis (DESIGN §6). Every key of a segment stands under its hash tag, on one server of a Cluster:

    lw:{12}:r:<low half >> 8>   hash: low byte → node|epoch    at most 256 fields: a listpack, about 28 bytes a device
    lw:{12}:on:<node>           65,536 bits: who of the segment is there, see bits.py
    lw:{12}:nodes               set: the nodes that have such a bitmap
    lw:{12}:f                   the highest epoch that was detached or swept: none is given again
    lw:segments                 set: the segments that may have routes; on a server of its own

The scripts are told no other key than what a segment's keys begin with, and make the rest of it: which node's bitmap
is to be changed stands in Redis alone.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

from pyroaring import BitMap

from longwire.adapters.redis import bits
from longwire.adapters.redis.server import Call, RedisServer, Script
from longwire.errors import StoreUnavailable
from longwire.ports.routes import Attached, Route

MAX_DEVICES_A_CALL = 500
"""What one script does at a time: about 3 ms in which Redis serves nobody else."""
_SWEPT_AT_A_TIME = 500
_SWEEP_PAUSE_S = 0.01
_MAX_CALLS = 2_000

_ATTACH = Script("attach")
_DETACH = Script("detach")
_REPAIR = Script("repair")
_SWEEP = Script("sweep")
_WHEREABOUTS = Script("whereabouts")

# The client packs bytes three times as fast as numbers.
_FIELDS = [b"%d" % low for low in range(256)]

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


class RedisRoutes:
    """ports.routes.RouteTable in Redis. ``hints`` are the kinds that ``Attached.waits`` tells of, see waiting.py.

    Attaches that come while one is under way go together, so that Redis is asked once a segment.
    """

    def __init__(
        self,
        server: RedisServer,
        prefix: str = "lw",
        hints: Sequence[str] = ("w", "p"),
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._server = server
        self._prefix = prefix
        self._hints = tuple(hints)
        self._sleep = sleep
        self._known: set[int] = set()
        """Segments that were told to Redis; each repair tells them again."""
        self._ahead_ms: dict[int, float] = {}
        """By segment, how far its Redis's clock is before ours, at most."""
        self._waiting: list[_Attach] = []
        self._task: asyncio.Task[None] | None = None

    async def aclose(self) -> None:
        """Waits for the attaches that are under way, at most as long as a call may take."""
        if self._task is not None:
            await self._task

    def _base(self, segment: int) -> str:
        return f"{self._prefix}:{{{segment}}}"

    # -- attach --------------------------------------------------------------------------------------------------

    async def attach(self, node_id: str, device_nos: Sequence[int]) -> list[Attached]:
        if not device_nos:
            return []
        attach = _Attach(node_id, device_nos)
        self._waiting.append(attach)
        if self._task is None:
            self._task = asyncio.create_task(self._attach_waiting(), name="attaching routes")
        return await attach.done

    async def _attach_waiting(self) -> None:
        try:
            while self._waiting:
                attaches, self._waiting = self._waiting, []
                try:
                    await self._attach(attaches)
                finally:
                    for attach in attaches:
                        attach.finish()
        finally:
            self._task = None

    async def _attach(self, attaches: Sequence["_Attach"]) -> None:
        wanted: dict[tuple[str, int], list[tuple[_Attach, int]]] = {}
        for attach in attaches:
            for at, device_no in enumerate(attach.device_nos):
                wanted.setdefault((attach.node_id, device_no >> 16), []).append((attach, at))
        await self._tell({segment for _, segment in wanted} - self._known)
        sent_ms = time.monotonic() * 1000
        calls, places = [], []
        for (node_id, segment), items in wanted.items():
            for part in _chunks(items, MAX_DEVICES_A_CALL):
                lows = [attach.device_nos[at] & 0xFFFF for attach, at in part]
                head: list[str | int] = [node_id, self._gives_up_at(segment), len(self._hints), *self._hints]
                calls.append(Call(_ATTACH, [self._base(segment)], [*head, *lows]))
                places.append((segment, part))
        names: dict[bytes, str] = {}
        for (segment, part), result in zip(places, await self._server.try_run(calls), strict=True):
            if isinstance(result, StoreUnavailable):
                for attach, _ in part:
                    attach.error = result
                continue
            now_ms, *flat = result
            self._ahead_ms[segment] = now_ms - sent_ms
            if flat:
                for (attach, at), epoch, waits, old in zip(part, flat[::3], flat[1::3], flat[2::3], strict=True):
                    attach.attached[at] = Attached(epoch, _route(old, names) if old else None, waits == 1)

    def _gives_up_at(self, segment: int) -> int:
        """When nobody waits for the call any more, by the clock of the Redis that has the segment.

        Redis does what stands in its sockets when it comes back from having been stopped, hours later if need be.
        """
        ahead_ms = self._ahead_ms.get(segment)
        return 0 if ahead_ms is None else int((time.monotonic() + self._server.answers_within_s) * 1000 + ahead_ms)

    async def _tell(self, segments: Iterable[int]) -> None:
        """Has Redis know of the segments, before they have routes. Where it does not take them, the next one tells."""
        told = list(segments)
        if told:
            (result,) = await self._server.try_run([Call("SADD", [f"{self._prefix}:segments"], told)])
            if not isinstance(result, StoreUnavailable):
                self._known.update(told)

    # -- changes -------------------------------------------------------------------------------------------------

    async def detach(self, node_id: str, sessions: Sequence[tuple[int, int]]) -> None:
        await self._run(
            Call(_DETACH, [self._base(segment)], [node_id, *_flat(part)]) for segment, part in _by_segment(sessions)
        )

    async def repair(self, node_id: str, segment: int, sessions: Sequence[tuple[int, int]]) -> list[tuple[int, Route]]:
        if not sessions:
            return []
        await self._tell([segment])
        results = await self._run(
            Call(_REPAIR, [self._base(segment)], [node_id, *_flat(part)])
            for part in _chunks(sessions, MAX_DEVICES_A_CALL)
        )
        names: dict[bytes, str] = {}
        return [
            (segment << 16 | low, _route(standing, names))
            for lost in results
            for low, standing in zip(lost[::2], lost[1::2], strict=True)
        ]

    async def sweep(self, node_id: str) -> int:
        swept = 0
        for segment in await self.segments():
            is_done = False
            while not is_done:
                (found,) = await self._server.run([Call(_SWEEP, [self._base(segment)], [node_id, _SWEPT_AT_A_TIME])])
                removed, is_done = found
                swept += removed
                if not is_done:
                    await self._sleep(_SWEEP_PAUSE_S)
        return swept

    # -- looks ---------------------------------------------------------------------------------------------------

    async def find(self, device_nos: Sequence[int]) -> list[Route | None]:
        wanted: dict[int, list[int]] = {}
        for at, device_no in enumerate(device_nos):
            wanted.setdefault(device_no >> 8, []).append(at)
        results = await self._run(
            Call("HMGET", [f"{self._base(high >> 8)}:r:{high & 255}"], [_FIELDS[device_nos[at] & 255] for at in places])
            for high, places in wanted.items()
        )
        found: list[Route | None] = [None] * len(device_nos)
        names: dict[bytes, str] = {}
        for places, values in zip(wanted.values(), results, strict=True):
            for at, value in zip(places, values, strict=True):
                if value is not None:
                    found[at] = _route(value, names)
        return found

    async def whereabouts(self, segment: int) -> dict[str, BitMap]:
        ((*flat,),) = await self._server.run([Call(_WHEREABOUTS, [self._base(segment)])])
        found = {node.decode(): bits.load(there, segment) for node, there in zip(flat[::2], flat[1::2], strict=True)}
        return {node_id: devices for node_id, devices in found.items() if devices}

    async def routed_to(self, node_id: str, segment: int) -> BitMap:
        (there,) = await self._server.run([Call("GET", [f"{self._base(segment)}:on:{node_id}"])])
        return bits.load(there or b"", segment)

    async def segments(self) -> list[int]:
        (found,) = await self._server.run([Call("SMEMBERS", [f"{self._prefix}:segments"])])
        return sorted(int(segment) for segment in found)

    async def nodes(self) -> set[str]:
        results = await self._run(
            Call("SMEMBERS", [f"{self._base(segment)}:nodes"]) for segment in await self.segments()
        )
        return {node.decode() for found in results for node in found}

    async def count(self, node_id: str) -> int:
        results = await self._run(
            Call("BITCOUNT", [f"{self._base(segment)}:on:{node_id}"]) for segment in await self.segments()
        )
        return sum(results)

    async def _run(self, calls: Iterable[Call]) -> list[Any]:
        results = []
        for part in _chunks(list(calls), _MAX_CALLS):
            results += await self._server.run(part)
        return results


class _Attach:
    """An attach that waits for its answer."""

    __slots__ = ("attached", "device_nos", "done", "error", "node_id")

    def __init__(self, node_id: str, device_nos: Sequence[int]) -> None:
        self.node_id = node_id
        self.device_nos = device_nos
        self.attached: list[Attached | None] = [None] * len(device_nos)
        self.error: StoreUnavailable | None = None
        self.done: asyncio.Future[list[Attached]] = asyncio.get_running_loop().create_future()

    def finish(self) -> None:
        """Tells the caller; in part is not at all: it attaches again."""
        attached = [one for one in self.attached if one is not None]
        if self.done.done():
            return  # its caller went away
        if len(attached) == len(self.attached):
            self.done.set_result(attached)
        else:
            self.done.set_exception(self.error or StoreUnavailable("Redis came to it too late"))


def _route(value: bytes, names: dict[bytes, str]) -> Route:
    node, _, epoch = value.rpartition(b"|")
    name = names.get(node)
    if name is None:
        name = names[node] = node.decode()
    return Route(name, int(epoch))


def _by_segment(sessions: Sequence[tuple[int, int]]) -> Iterable[tuple[int, Sequence[tuple[int, int]]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for session in sessions:
        found.setdefault(session[0] >> 16, []).append(session)
    for segment, items in found.items():
        for part in _chunks(items, MAX_DEVICES_A_CALL):
            yield segment, part


def _flat(sessions: Sequence[tuple[int, int]]) -> list[int]:
    return [value for device_no, epoch in sessions for value in (device_no & 0xFFFF, epoch)]


def _chunks(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    for at in range(0, len(items), size):
        yield items[at : at + size]
