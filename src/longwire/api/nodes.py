"""The nodes that live, what they do a second, and sending their devices from one to another.

A node counts since it began; a rate is the difference of two looks at its counts, at least a second apart.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.model import NodeInfo
from longwire.operations_model import NodeReport
from longwire.ports.link import Link
from longwire.ports.registry import Registry
from longwire.ports.routes import RouteTable

_APART_S = 1.0
_UNEVEN_SHARE = 0.05
_UNEVEN_LEAST = 10
"""What a node has above its share by less than this is left there: it is not worth a reconnect."""


class Rates(NamedTuple):
    """What a node does a second; None until it was looked at twice."""

    connects: float | None = None
    uplink: float | None = None
    downlink: float | None = None
    acks: float | None = None


class NodeView(NamedTuple):
    """A node as the registry lists it, with what it says of itself; ``report`` None: it does not answer."""

    info: NodeInfo
    report: NodeReport | None
    rates: Rates


class NodeMoves(NamedTuple):
    """What a rebalance does at a node; ``moving`` None: it does not answer."""

    node_id: str
    connections: int
    target: int
    moving: int | None


class _Seen(NamedTuple):
    at: float
    report: NodeReport
    rates: Rates


class Nodes:
    """Looks at nodes. ``drift`` tells by how much counts of pushes were found not to add up (push/check.py)."""

    def __init__(
        self,
        registry: Registry,
        link: Link,
        routes: RouteTable,
        clock: Clock,
        drift: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._link = link
        self._routes = routes
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self.drift = drift

    def sessions(self) -> int:
        """Sessions on all nodes, as last known."""
        return self._link.session_count()

    async def all_nodes(self) -> list[NodeView]:
        """Every node that lives, by id."""
        nodes = sorted(self._registry.nodes(), key=lambda node: node.node_id)
        reports = await self._reports(nodes)
        self._seen = {report.node_id: self._look(report) for report in reports if report is not None}
        return [self._view(node, report) for node, report in zip(nodes, reports, strict=True)]

    async def find(self, node_id: str) -> NodeView | None:
        """A node that lives."""
        for node in self._registry.nodes():
            if node.node_id == node_id:
                report = await self._link.report(node_id)
                if report is not None:
                    self._seen[node_id] = self._look(report)
                return self._view(node, report)
        return None

    async def routed(self, node_ids: Sequence[str]) -> dict[str, int]:
        """How many devices the route table says are on each node; of none where the table does not answer."""
        try:
            counts = await asyncio.gather(*map(self._routes.count, node_ids))
        except StoreUnavailable:
            return {}
        return dict(zip(node_ids, counts, strict=True))

    # -- leaving and balancing ---------------------------------------------------------------------------------------

    def others_take_devices(self, node_id: str) -> bool:
        """Whether devices of this node have another one to go to."""
        return any(node.node_id != node_id and not node.is_draining for node in self._registry.nodes())

    async def drain(self, node_id: str, within_s: float) -> bool:
        """Has the node send its devices elsewhere; False where it does not live. Raises StoreUnavailable."""
        return await self._link.drain(node_id, within_s)

    async def undrain(self, node_id: str) -> bool:
        """Has the node take devices again; False where it does not live. Raises StoreUnavailable."""
        return await self._link.undrain(node_id)

    async def rebalance(self, within_s: float) -> list[NodeMoves]:
        """Has nodes that hold more than their share by weight send the surplus elsewhere.

        Nodes that drain have no share, and are left alone.
        """
        nodes = sorted((node for node in self._registry.nodes() if not node.is_draining), key=lambda n: n.node_id)
        reports = await self._reports(nodes)
        held = [
            node.connections if report is None else report.connections
            for node, report in zip(nodes, reports, strict=True)
        ]
        weights = sum(node.weight for node in nodes)
        targets = [round(sum(held) * node.weight / weights) for node in nodes]

        async def move(node: NodeInfo, connections: int, target: int) -> NodeMoves:
            surplus, moving = connections - target, 0
            if surplus > max(_UNEVEN_LEAST, _UNEVEN_SHARE * target):
                try:
                    moving = await self._link.move(node.node_id, surplus, within_s)
                except StoreUnavailable:
                    return NodeMoves(node.node_id, connections, target, None)
            return NodeMoves(node.node_id, connections, target, moving)

        return list(await asyncio.gather(*map(move, nodes, held, targets)))

    # -- looking at them ---------------------------------------------------------------------------------------------

    async def _reports(self, nodes: Sequence[NodeInfo]) -> list[NodeReport | None]:
        return await asyncio.gather(*(self._link.report(node.node_id) for node in nodes))

    def _view(self, node: NodeInfo, report: NodeReport | None) -> NodeView:
        return NodeView(node, report, Rates() if report is None else self._seen[node.node_id].rates)

    def _look(self, report: NodeReport) -> _Seen:
        now = self._clock.monotonic()
        before = self._seen.get(report.node_id)
        if before is None:
            return _Seen(now, report, Rates())
        apart_s = now - before.at
        if apart_s < _APART_S:
            return before
        was = before.report
        rates = Rates(
            *(
                round((after - earlier) / apart_s, 1)
                for after, earlier in (
                    (report.connects, was.connects),
                    (report.uplink, was.uplink),
                    (report.downlink, was.downlink),
                    (report.acks, was.acks),
                )
            )
        )
        return _Seen(now, report, rates)
