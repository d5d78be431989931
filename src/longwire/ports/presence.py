"""How devices were last seen."""

from collections.abc import Sequence
from typing import Protocol

from longwire.operations_model import LastSession


class PresenceStore(Protocol):
    """Of two notes about a device the one with the higher version counts, in whatever order they come."""

    def ended(self, session: LastSession) -> None:
        """Queues for the next commit; lost with the process before it."""
        ...

    async def last_sessions(self, device_nos: Sequence[int]) -> list[LastSession | None]:
        """Raises StoreUnavailable."""
        ...
