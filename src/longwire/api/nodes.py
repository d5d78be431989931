"""The nodes that live, and what they do a second.

A node counts since it began; a rate is the difference of two looks at its counts, at least a second apart.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from longwire.bitmaps import segments
from longwire.clock import Clock
from longwire.model import NodeInfo
from longwire.operations_model import NodeReport
from longwire.ports.audiences import AudienceStore
from longwire.ports.link import Link
from longwire.ports.registry import Registry
from longwire.ports.routes import RouteTable

_APART_S = 1.0


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
        sets: AudienceStore,
        clock: Clock,
        drift: Callable[[], int],
    ) -> None:
        self._registry = registry
        self._link = link
        self._routes = routes
        self._sets = sets
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self.drift = drift

    def sessions(self) -> int:
        """Sessions on all nodes, as last known."""
        return self._link.session_count()

    async def all_nodes(self) -> list[NodeView]:
        """Every node that lives, by id."""
        nodes = sorted(self._registry.nodes(), key=lambda node: node.node_id)
        views = [NodeView(node, await self._link.report(node.node_id), Rates()) for node in nodes]
        seen = {view.info.node_id: self._look(view.report) for view in views if view.report is not None}
        self._seen = seen
        return [
            view._replace(rates=seen[view.info.node_id].rates) if view.info.node_id in seen else view for view in views
        ]

    async def routed(self, node_ids: Sequence[str]) -> dict[str, int]:
        """How many devices the route table says are on each node. Raises StoreUnavailable."""
        counts = dict.fromkeys(node_ids, 0)
        for segment in segments(await self._sets.everyone()):
            for node_id, devices in (await self._routes.whereabouts(segment)).items():
                if node_id in counts:
                    counts[node_id] += len(devices)
        return counts

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
