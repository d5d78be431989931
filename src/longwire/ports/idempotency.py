"""Answers kept under the caller's Idempotency-Key for a day."""

from typing import Protocol

from longwire.push_model import KeptAnswer


class IdempotencyStore(Protocol):
    """Raises StoreUnavailable."""

    async def find(self, caller: str, key: str) -> KeptAnswer | None: ...

    async def keep(self, answer: KeptAnswer) -> KeptAnswer | None:
        """Keeps the answer; gives the one that is there already, and then nothing is kept."""
        ...
