"""The route table in memory: gone with the process, as are the sessions it lists."""

from collections.abc import Sequence

from pyroaring import BitMap

from longwire.bitmaps import part
from longwire.clock import Clock
from longwire.ports.routes import Attached, Route


class EmbeddedRoutes:
    """ports.routes.RouteTable for nodes of one process.

    Epochs come from one counter that is never behind the clock's milliseconds, so that they rise across a restart.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._epoch = 0
        self._nodes: dict[str, dict[int, int]] = {}
        self._there: dict[str, BitMap] = {}

    async def attach(self, node_id: str, device_nos: Sequence[int]) -> list[Attached]:
        self._epoch = max(self._epoch, self._clock.now_ms())
        devices = self._nodes.setdefault(node_id, {})
        there = self._there.setdefault(node_id, BitMap())
        attached = []
        for device_no in device_nos:
            previous = self._take(device_no)
            self._epoch += 1
            devices[device_no] = self._epoch
            there.add(device_no)
            attached.append(Attached(self._epoch, previous))
        return attached

    async def detach(self, node_id: str, sessions: Sequence[tuple[int, int]]) -> None:
        devices = self._nodes.get(node_id, {})
        for device_no, epoch in sessions:
            if devices.get(device_no) == epoch:
                del devices[device_no]
                self._there[node_id].discard(device_no)

    async def find(self, device_nos: Sequence[int]) -> list[Route | None]:
        return [self._find(device_no) for device_no in device_nos]

    async def whereabouts(self, segment: int) -> dict[str, BitMap]:
        found = {node_id: part(there, segment) for node_id, there in self._there.items()}
        return {node_id: devices for node_id, devices in found.items() if devices}

    def _find(self, device_no: int) -> Route | None:
        for node_id, devices in self._nodes.items():
            epoch = devices.get(device_no)
            if epoch is not None:
                return Route(node_id, epoch)
        return None

    def _take(self, device_no: int) -> Route | None:
        route = self._find(device_no)
        if route is not None:
            del self._nodes[route.node_id][device_no]
            self._there[route.node_id].discard(device_no)
        return route
