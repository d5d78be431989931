"""Leadership of the only process there is."""


class EmbeddedLeadership:
    """ports.leadership.Leadership where one process does everything."""

    def leads(self, job: str) -> bool:
        return True

    async def resign(self, job: str) -> None:
        pass
