"""Placement: which node a device is told to connect to (DESIGN §8).

Round robin over the nodes that live and do not drain. Other strategies come with the cluster.
"""

import random

from longwire.accounts.refusals import RefusalCode, Refused
from longwire.model import NodeInfo
from longwire.ports.registry import Registry

RETRY_AFTER_S = 5.0
"""The shortest wait where there is no node; each client is told a random one between this and twice this."""


class Placement:
    """Chooses nodes; plain calls that never wait."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._turn = 0

    def choose(self, avoid: str | None = None) -> NodeInfo:
        """A node for a device, not the one it could not reach as long as there is another.

        ``avoid`` is a node's id or its name. A lone node is given although it is to be avoided: the registry
        says that it lives, and what kept the device from it may be over. Raises Refused (no-node).
        """
        nodes = [node for node in self._registry.nodes() if not node.is_draining]
        if not nodes:
            retry_after_s = RETRY_AFTER_S * (1 + random.random())  # noqa: S311 - spreads clients, hides nothing
            raise Refused(RefusalCode.NO_NODE, "no node takes connections now", retry_after_s)
        if avoid:
            nodes = [node for node in nodes if not _is_called(node, avoid)] or nodes
        nodes.sort(key=lambda node: node.node_id)
        self._turn += 1
        return nodes[self._turn % len(nodes)]


def _is_called(node: NodeInfo, name: str) -> bool:
    return name in (node.node_id, node.node_id.partition("~")[0])
