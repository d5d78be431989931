"""The nodes that live, what they do a second alone and together, and sending their devices to one another.

A node counts since it began; a rate is the difference of two looks at its counts, at least a second apart.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from longwire.clock import Clock
from longwire.errors import StoreUnavailable
from longwire.model import NodeInfo
from longwire.operations_model import NodeReport
from longwire.ports.link import Link
from longwire.ports.registry import Registry
from longwire.ports.routes import RouteTable
from longwire.seeing.history import Sample

_APART_S = 0.9
"""Looks each second, by several, come a little less than a second apart."""
_UNEVEN_SHARE = 0.05
_UNEVEN_LEAST = 10
"""What a node has above its share by less than this is left there: it is not worth a reconnect."""


class Rates(NamedTuple):
    """What a node does a second; None until it was looked at twice."""

    connects: float | None = None
    uplink: float | None = None
    downlink: float | None = None
    acks: float | None = None
    closes: float | None = None
    bytes_in: float | None = None
    bytes_out: float | None = None
    shed: float | None = None
    slow: float | None = None
    closes_by_reason: Mapping[str, float] = MappingProxyType({})


class NodeView(NamedTuple):
    """A node as the registry lists it, with what it says of itself; ``report`` None: it does not answer."""

    info: NodeInfo
    report: NodeReport | None
    rates: Rates
    drifts_s: float = 0.0
    """Since when the node's sessions and routes have differed at each of its looks."""


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
    drifts_since: float | None


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

    async def sample(self) -> Sample:
        """All nodes together, for the history."""
        views = await self.all_nodes()
        rates, (p50, p95, p99) = added_up(views), slowest(views, "recent_ack_latency_ms")
        return Sample(
            online=self.sessions(),
            connects=rates.connects,
            closes=rates.closes,
            up=rates.uplink,
            down=rates.downlink,
            acks=rates.acks,
            p50=p50,
            p95=p95,
            p99=p99,
            closes_by_reason=rates.closes_by_reason,
        )

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
        if report is None:
            return NodeView(node, None, Rates())
        seen = self._seen[node.node_id]
        drifts_s = 0.0 if seen.drifts_since is None else self._clock.monotonic() - seen.drifts_since
        return NodeView(node, report, seen.rates, drifts_s)

    def _look(self, report: NodeReport) -> _Seen:
        now = self._clock.monotonic()
        before = self._seen.get(report.node_id)
        if before is None:
            return _Seen(now, report, Rates(), now if report.route_drift else None)
        apart_s = now - before.at
        if apart_s < _APART_S:
            return before
        was = before.report
        drifts_since = None
        if report.route_drift:
            drifts_since = now if before.drifts_since is None else before.drifts_since

        def rate(after: int, earlier: int) -> float:
            return round((after - earlier) / apart_s, 1)

        rates = Rates(
            connects=rate(report.connects, was.connects),
            uplink=rate(report.uplink, was.uplink),
            downlink=rate(report.downlink, was.downlink),
            acks=rate(report.acks, was.acks),
            closes=rate(sum(report.closes.values()), sum(was.closes.values())),
            bytes_in=rate(report.bytes_in, was.bytes_in),
            bytes_out=rate(report.bytes_out, was.bytes_out),
            shed=rate(report.shed, was.shed),
            slow=rate(report.slow, was.slow),
            closes_by_reason={
                reason: rate(count, was.closes.get(reason, 0))
                for reason, count in report.closes.items()
                if count > was.closes.get(reason, 0)
            },
        )
        return _Seen(now, report, rates, drifts_since)


def added_up(views: Sequence[NodeView]) -> Rates:
    """What the nodes that answer do a second together."""

    def added(name: str) -> float | None:
        known = [rate for view in views if (rate := getattr(view.rates, name)) is not None]
        return round(sum(known), 1) if known else None

    reasons: Counter[str] = Counter()
    for view in views:
        reasons.update(view.rates.closes_by_reason)
    numbers: dict[str, Any] = {name: added(name) for name in Rates._fields if name != "closes_by_reason"}
    return Rates(**numbers, closes_by_reason={reason: round(rate, 1) for reason, rate in sorted(reasons.items())})


def slowest(views: Sequence[NodeView], name: str) -> tuple[float | None, float | None, float | None]:
    """Of each percentile (50, 95, 99) of a latency that nodes report, the highest among them."""
    told = [getattr(view.report, name) for view in views if view.report is not None]
    p50, p95, p99 = (max((one[at] for one in told if one[at] is not None), default=None) for at in range(3))
    return p50, p95, p99
