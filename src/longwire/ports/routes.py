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
    waits: bool = True
    """Whether anything may wait for the device, inbox or push; False only where nothing did when the route stood."""


class RouteTable(Protocol):
    """At most one route a device. Epochs rise strictly for a device, detach, restart or clock step notwithstanding.

    A call that raises StoreUnavailable may have been carried out in part; each may be repeated.
    """

    async def attach(self, node_id: str, device_nos: Sequence[int]) -> list[Attached]:
        """Gives each device a new epoch and routes it to the node. Raises StoreUnavailable."""
        ...

    async def detach(self, node_id: str, sessions: Sequence[tuple[int, int]]) -> None:
        """Removes the routes of (device_no, epoch) that are still exactly these; later ones stay.

        Raises StoreUnavailable.
        """
        ...

    async def repair(self, node_id: str, segment: int, sessions: Sequence[tuple[int, int]]) -> list[tuple[int, Route]]:
        """Routes the sessions (device_no, epoch) of one segment to the node again, with the epochs that they have.

        A route is set where there is none or one of a lower epoch. Gives the devices that lost, each with the route
        that stands: their sessions on this node are over. Raises StoreUnavailable.
        """
        ...

    async def find(self, device_nos: Sequence[int]) -> list[Route | None]:
        """Each device's route, None where it has none. Raises StoreUnavailable."""
        ...

    async def whereabouts(self, segment: int) -> dict[str, BitMap]:
        """By node, who of the segment is there. The bitmaps are the caller's own. Raises StoreUnavailable."""
        ...

    async def routed_to(self, node_id: str, segment: int) -> BitMap:
        """Who of the segment is on the node; the caller's own. Raises StoreUnavailable."""
        ...

    async def segments(self) -> list[int]:
        """Every segment that may have routes, lowest first. Raises StoreUnavailable."""
        ...

    async def nodes(self) -> set[str]:
        """The nodes that have routes. Raises StoreUnavailable."""
        ...

    async def count(self, node_id: str) -> int:
        """How many devices are routed to the node. Raises StoreUnavailable."""
        ...

    async def sweep(self, node_id: str) -> int:
        """Removes every route of a node that has died, little by little; how many those were.

        Raises StoreUnavailable; what is left then is swept by the next call.
        """
        ...
