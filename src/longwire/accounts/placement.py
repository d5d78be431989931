"""Placement: which node a device is told to connect to (DESIGN §8).

    registry ──► live nodes ──► with room ──► not the one to avoid ──► strategy ──► node

Between two of a node's figures what it was given since counts on top of them, so that many devices that come within
a second do not all go where there was room a second ago.
"""

import random
from collections.abc import Sequence

from longwire.accounts.placing import PlacementStrategy, strategy_of
from longwire.accounts.refusals import RefusalCode, Refused
from longwire.model import NodeInfo
from longwire.ports.registry import Registry

RETRY_AFTER_S = 5.0
"""The shortest wait where there is no node; each client is told a random one between this and twice this."""


class Placement:
    """Chooses nodes; plain calls that never wait."""

    def __init__(
        self,
        registry: Registry,
        strategy: PlacementStrategy = PlacementStrategy.AUTO,
        *,
        random_: random.Random | None = None,
    ) -> None:
        self._registry = registry
        self._random = random_ or random.Random()  # noqa: S311 - spreads clients, hides nothing
        self._strategy = strategy_of(strategy, self._random)
        self._seen: Sequence[NodeInfo] | None = None
        self._given: dict[str, tuple[int, int]] = {}
        self.live: Sequence[NodeInfo] = ()

    def choose(self, device_id: str, avoid: str | None = None) -> NodeInfo:
        """A node for a device, not the one it could not reach as long as there is another.

        ``avoid`` is a node's id or its name. A full node is given only where all are full. A lone node is given
        although it is to be avoided: the registry says that it lives, and what kept the device from it may be over.
        Raises Refused (no-node).
        """
        self.check()
        candidates = [node for node in self.live if self._has_room(node)] or self.live
        if avoid:
            candidates = [node for node in candidates if not _is_called(node, avoid)] or candidates
        node = self._strategy.pick(device_id, candidates, self)
        figures_at_ms, count = self._given[node.node_id]
        self._given[node.node_id] = figures_at_ms, count + 1
        return node

    def check(self) -> None:
        """Raises Refused (no-node) where ``choose`` would."""
        nodes = self._registry.nodes()
        if nodes is not self._seen:
            self._take(nodes)
        if not self.live:
            retry_after_s = RETRY_AFTER_S * (1 + self._random.random())
            raise Refused(RefusalCode.NO_NODE, "no node takes connections now", retry_after_s)

    def connections(self, node: NodeInfo) -> int:
        """What the node said it holds, and what it was given since."""
        return node.connections + self._given[node.node_id][1]

    def _take(self, nodes: Sequence[NodeInfo]) -> None:
        self._seen = nodes
        self.live = sorted((node for node in nodes if not node.is_draining), key=lambda node: node.node_id)
        before, self._given = self._given, {}
        for node in self.live:
            figures_at_ms, count = before.get(node.node_id, (node.figures_at_ms, 0))
            self._given[node.node_id] = node.figures_at_ms, count if figures_at_ms == node.figures_at_ms else 0

    def _has_room(self, node: NodeInfo) -> bool:
        return not node.capacity or self.connections(node) < node.capacity


def _is_called(node: NodeInfo, name: str) -> bool:
    return name in (node.node_id, node.node_id.partition("~")[0])
