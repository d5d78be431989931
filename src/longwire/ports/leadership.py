"""Leadership: which process of the cluster does a job that one at a time should do (a sweeper, a scheduler)."""

from typing import Protocol


class Leadership(Protocol):
    """Each named job has at most one leader, as far as clocks and networks let anybody say so.

    A process that was paused may take itself for the leader for a moment after another took over, so a job must
    be safe to run twice; leadership only spares the work.
    """

    def leads(self, job: str) -> bool:
        """Whether this process does ``job`` now; never waits.

        The first call for a job stands as a candidate for it, until ``resign`` or the end of the process; so ask
        again each time before a piece of the job is done. False while the engine is away.
        """
        ...

    async def resign(self, job: str) -> None:
        """Stands back, so that another process may lead; no error where this one does not."""
        ...
