"""The registry in memory: lists the nodes of this process."""

from collections.abc import Callable

from longwire.adapters.node_list import NodeList
from longwire.model import NodeInfo


class EmbeddedRegistry:
    """ports.registry.Registry within one process."""

    def __init__(self) -> None:
        self._registered: dict[str, NodeInfo] = {}
        self._list = NodeList()

    async def register(self, node: NodeInfo) -> None:
        self._registered[node.node_id] = node
        self._list.show(self._registered)

    def update(self, node: NodeInfo) -> None:
        if node.node_id in self._registered:
            self._registered[node.node_id] = node
            self._list.show(self._registered)

    async def leave(self, node_id: str) -> None:
        if self._registered.pop(node_id, None) is not None:
            self._list.show(self._registered)

    def nodes(self) -> list[NodeInfo]:
        return self._list.nodes

    @property
    def stale_since_ms(self) -> int | None:
        return None

    def on_change(self, callback: Callable[[], None]) -> None:
        self._list.on_change(callback)
