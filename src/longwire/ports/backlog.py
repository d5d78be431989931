"""How much waits in the stores. Counted from time to time, never on the way of a message."""

from typing import NamedTuple, Protocol


class Backlog(NamedTuple):
    """What waited when it was counted; a count ends at a million and one."""

    at_ms: int
    inbox: int
    """Messages that devices have not acknowledged."""
    oldest_ms: int | None
    """When the oldest of them was sent; None where none waits."""
    push_pending: int
    """Devices that live pushes wait for."""
    webhook_events: int
    dead_letters: int


class BacklogStore(Protocol):
    """Counts."""

    async def look(self) -> Backlog:
        """Counts anew. Raises StoreUnavailable."""
        ...
