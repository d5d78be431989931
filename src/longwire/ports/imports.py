"""Jobs that register devices from files."""

from collections.abc import Sequence
from typing import Protocol

from longwire.operations_model import Import


class ImportStore(Protocol):
    """Raises StoreUnavailable."""

    async def put(self, job: Import) -> None:
        """Keeps the job as it stands now."""
        ...

    async def find(self, import_id: bytes) -> Import | None: ...

    async def page(self, before_id: bytes, limit: int) -> Sequence[Import]:
        """Newest first; ``b""``: from the newest."""
        ...

    async def running(self) -> Sequence[Import]:
        """Those to go on with after a start."""
        ...
