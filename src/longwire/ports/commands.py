"""Commands to devices and what they answered."""

from typing import Protocol

from longwire.operations_model import Command


class CommandStore(Protocol):
    """Raises StoreUnavailable."""

    async def add(self, command: Command, trace: bytes = b"") -> bool:
        """False where there is one of this id: the same call again."""
        ...

    async def finish(self, command: Command) -> None:
        """Keeps the outcome; a reply, late or not, is never replaced by anything else."""
        ...

    async def find(self, command_id: bytes) -> Command | None: ...
