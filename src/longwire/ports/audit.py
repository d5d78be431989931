"""The audit: who did what."""

from collections.abc import Sequence
from typing import Protocol

from longwire.operations_model import AuditEntry


class AuditLog(Protocol):
    """Entries queue for the next commit and are lost with the process before it."""

    def append(self, entry: AuditEntry) -> None: ...

    async def entries(
        self, before_no: int, limit: int, *, caller: str = "", action: str = "", since_ms: int = 0
    ) -> Sequence[AuditEntry]:
        """Newest first, below ``before_no`` (0: from the newest). Raises StoreUnavailable.

        Only those of ``caller``, whose action begins with ``action``, and from ``since_ms`` on, where given.
        """
        ...
