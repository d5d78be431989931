"""The schema of a cluster's store: looked at, and brought to this program's."""

import logging

from longwire.adapters.sql.shared import SharedDatabase, migrate_shared
from longwire.app.engines import extra_is_named


async def migrate_store(url: str) -> list[str]:
    """Runs the migrations that the store has not had yet; their names.

    Raises StartFailed, SchemaMismatch, UnknownEngine and StoreUnavailable.
    """
    # It would log that MySQL names primary keys itself.
    logging.getLogger("asyncmy").setLevel(logging.ERROR)
    with extra_is_named():
        return await migrate_shared(url)


async def check_store(url: str) -> None:
    """Raises SchemaMismatch where the schema is not this program's, and as ``migrate_store``."""
    with extra_is_named():
        database = SharedDatabase(url)
        await database.start()
        await database.stop()
