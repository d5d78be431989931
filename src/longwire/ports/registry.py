"""The registry: which gateway nodes live, and what load they say they have."""

from collections.abc import Callable
from typing import Protocol

from longwire.model import NodeInfo


class Registry(Protocol):
    """Nodes register while they live and are gone when they die or leave."""

    async def register(self, node: NodeInfo) -> None:
        """Lists the node, or replaces what is listed under its id.

        It stays listed until it leaves: where the engine forgets it, it is listed again. Raises
        RegistryUnavailable where the engine does not take it now; then it is not listed.
        """
        ...

    def update(self, node: NodeInfo) -> None:
        """Replaces what is listed under the node's id, soon; never waits.

        For figures that change often and for ``is_draining``. Only the newest is kept where the engine is away or
        slow. Nothing happens where this process has not registered the node, or it has left.
        """
        ...

    async def leave(self, node_id: str) -> None:
        """Takes the node off the list; no error where it is not on it, or where the engine is away.

        A node of this process is off this process's own list at once.
        """
        ...

    def nodes(self) -> list[NodeInfo]:
        """The nodes that live, as last known; never waits. The list is not to be changed."""
        ...

    @property
    def stale_since_ms(self) -> int | None:
        """Since when the list may be out of date, for the engine is away; None while it is watched."""
        ...

    def on_change(self, callback: Callable[[], None]) -> None:
        """Has ``callback`` called on the loop after the list changed in more than load figures.

        So a node came or went, or began or ceased to drain. What it raises is logged.
        """
        ...
