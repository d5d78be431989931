"""The stores that the contract tests of pushes are run against."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from push_stores import MAKERS, Made, Maker

from longwire.testing import ManualClock


@pytest.fixture(params=sorted(MAKERS))
def push_maker(request: pytest.FixtureRequest) -> Maker:
    return MAKERS[request.param]


@pytest.fixture
async def pushing(push_maker: Maker, tmp_path: Path) -> AsyncIterator[Made]:
    """A started push store on a clock that tests move."""
    async with push_maker(tmp_path, ManualClock()) as made:
        yield made
