"""The route table: which node holds a device's session, fenced by epochs (DESIGN §6)."""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct
from pyroaring import BitMap


class Route(Struct, frozen=True, gc=False):
    """Where a device is attached."""

    node_id: str
    epoch: int


class Attached(Struct, frozen=True, gc=False):
    """The outcome of an attach: the session's epoch, and the route it took over, if any."""

    epoch: int
    previous: Route | None


class RouteTable(Protocol):
    """At most one route a device. Epochs rise strictly for a device, detach, restart or clock step notwithstanding."""

    async def attach(self, node_id: str, device_nos: Sequence[int]) -> list[Attached]:
        """Gives each device a new epoch and routes it to the node. Raises StoreUnavailable."""
        ...

    async def detach(self, node_id: str, sessions: Sequence[tuple[int, int]]) -> None:
        """Removes the routes of (device_no, epoch) that are still exactly these; later ones stay."""
        ...

    async def find(self, device_nos: Sequence[int]) -> list[Route | None]:
        """Each device's route, None where it has none. Raises StoreUnavailable."""
        ...

    async def whereabouts(self, segment: int) -> dict[str, BitMap]:
        """By node, who of the segment is there. The bitmaps are the caller's own. Raises StoreUnavailable."""
        ...
