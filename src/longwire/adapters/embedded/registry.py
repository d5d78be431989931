"""The registry in memory: lists the nodes of this process."""

from longwire.model import NodeInfo


class EmbeddedRegistry:
    """ports.registry.Registry within one process."""

    def __init__(self) -> None:
        self._nodes: dict[str, NodeInfo] = {}

    async def register(self, node: NodeInfo) -> None:
        self._nodes[node.node_id] = node

    async def leave(self, node_id: str) -> None:
        self._nodes.pop(node_id, None)

    def nodes(self) -> list[NodeInfo]:
        return list(self._nodes.values())
