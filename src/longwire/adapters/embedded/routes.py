"""The route table in memory: gone with the process, as are the sessions it lists."""

from collections.abc import Callable, Sequence

from pyroaring import BitMap

from longwire import bitmaps
from longwire.clock import Clock
from longwire.ports.routes import Attached, Route


class EmbeddedRoutes:
    """ports.routes.RouteTable for nodes of one process.

    Epochs come from one counter that is never behind the clock's milliseconds, so that they rise across a restart.
    ``waits`` says for whom anything may wait; without it everybody is taken to.
    """

    def __init__(self, clock: Clock, waits: Callable[[int], bool] = lambda _device_no: True) -> None:
        self._clock = clock
        self._waits = waits
        self._epoch = 0
        self._nodes: dict[str, dict[int, int]] = {}
        self._there: dict[str, BitMap] = {}

    async def attach(self, node_id: str, device_nos: Sequence[int]) -> list[Attached]:
        self._epoch = max(self._epoch, self._clock.now_ms())
        attached = []
        for device_no in device_nos:
            previous = self._take(device_no)
            self._epoch += 1
            self._put(node_id, device_no, self._epoch)
            attached.append(Attached(self._epoch, previous, self._waits(device_no)))
        return attached

    async def detach(self, node_id: str, sessions: Sequence[tuple[int, int]]) -> None:
        devices = self._nodes.get(node_id, {})
        for device_no, epoch in sessions:
            if devices.get(device_no) == epoch:
                del devices[device_no]
                self._there[node_id].discard(device_no)

    async def repair(self, node_id: str, segment: int, sessions: Sequence[tuple[int, int]]) -> list[tuple[int, Route]]:
        lost = []
        for device_no, epoch in sessions:
            self._epoch = max(self._epoch, epoch)
            standing = self._find(device_no)
            if standing is None or standing.epoch < epoch:
                self._take(device_no)
                self._put(node_id, device_no, epoch)
            elif standing != Route(node_id, epoch):
                lost.append((device_no, standing))
        return lost

    async def find(self, device_nos: Sequence[int]) -> list[Route | None]:
        return [self._find(device_no) for device_no in device_nos]

    async def whereabouts(self, segment: int) -> dict[str, BitMap]:
        found = {node_id: bitmaps.part(there, segment) for node_id, there in self._there.items()}
        return {node_id: devices for node_id, devices in found.items() if devices}

    async def routed_to(self, node_id: str, segment: int) -> BitMap:
        return bitmaps.part(self._there.get(node_id, BitMap()), segment)

    async def segments(self) -> list[int]:
        return sorted({segment for there in self._there.values() for segment in bitmaps.segments(there)})

    async def nodes(self) -> set[str]:
        return {node_id for node_id, there in self._there.items() if there}

    async def count(self, node_id: str) -> int:
        return len(self._there.get(node_id, ()))

    async def sweep(self, node_id: str) -> int:
        self._there.pop(node_id, None)
        return len(self._nodes.pop(node_id, ()))

    def _find(self, device_no: int) -> Route | None:
        for node_id, devices in self._nodes.items():
            epoch = devices.get(device_no)
            if epoch is not None:
                return Route(node_id, epoch)
        return None

    def _put(self, node_id: str, device_no: int, epoch: int) -> None:
        self._nodes.setdefault(node_id, {})[device_no] = epoch
        self._there.setdefault(node_id, BitMap()).add(device_no)

    def _take(self, device_no: int) -> Route | None:
        route = self._find(device_no)
        if route is not None:
            del self._nodes[route.node_id][device_no]
            self._there[route.node_id].discard(device_no)
        return route
