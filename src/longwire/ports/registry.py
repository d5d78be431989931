"""The registry: which gateway nodes live."""

from typing import Protocol

from longwire.model import NodeInfo


class Registry(Protocol):
    """Nodes register while they live and are gone when they die or leave."""

    async def register(self, node: NodeInfo) -> None:
        """Lists the node, or replaces what is listed under its id."""
        ...

    async def leave(self, node_id: str) -> None:
        """Takes the node off the list; no error where it is not on it."""
        ...

    def nodes(self) -> list[NodeInfo]:
        """The nodes that live, as last known; never waits."""
        ...
