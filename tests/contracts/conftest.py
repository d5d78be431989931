"""The engines and stores that the contract tests run on."""

import contextlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from databases import OpenDatabase, database, migrated, open_database
from push_stores import Made, Maker, pushes_on

from longwire.testing import ManualClock

__all__ = ["database", "migrated", "open_database"]


@pytest.fixture
def push_maker(open_database: OpenDatabase) -> Maker:
    @contextlib.asynccontextmanager
    async def make(clock: ManualClock) -> AsyncIterator[Made]:
        async with open_database() as opened:
            yield pushes_on(opened, clock)

    return make


@pytest.fixture
async def pushing(push_maker: Maker) -> AsyncIterator[Made]:
    """A started push store on a clock that tests move."""
    async with push_maker(ManualClock()) as made:
        yield made
