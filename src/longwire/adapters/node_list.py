"""The list of nodes that a registry gives out, and who is told when it changes."""

import logging
from collections.abc import Callable, Mapping

from longwire.model import NodeInfo

log = logging.getLogger(__name__)


class NodeList:
    """Holds the newest list; a list that was given out is never changed, so it is rebuilt at each change."""

    def __init__(self) -> None:
        self.nodes: list[NodeInfo] = []
        self._callbacks: list[Callable[[], None]] = []

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def show(self, nodes: Mapping[str, NodeInfo]) -> None:
        """Takes ``nodes``, and tells of it where more than load figures changed."""
        before, self.nodes = self.nodes, list(nodes.values())
        if _standing(before) == _standing(self.nodes):
            return
        for callback in self._callbacks:
            try:
                callback()
            except Exception:
                log.exception("a listener of the registry failed")


def _standing(nodes: list[NodeInfo]) -> set[tuple[str, bool]]:
    return {(node.node_id, node.is_draining) for node in nodes}
