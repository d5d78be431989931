"""What the node's tests share: a node in this process, and devices that are nothing but the protocol."""

import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parent))

from house import House
from raw_peer import FLAVOURS

from longwire.application import Longwire
from longwire.limits import Limits


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], object]]:
    """The node runs on uvloop and nowhere else."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def app() -> Longwire:
    return Longwire()


@pytest.fixture
async def houses(tmp_path: Path, app: Longwire) -> AsyncIterator[Callable[..., House]]:
    """Makes houses with limits of the test's own; not started, stopped when the test is over."""
    made: list[House] = []

    def make(**limits: object) -> House:
        house = House(tmp_path, replace(Limits(), **limits), app)  # type: ignore[arg-type]
        made.append(house)
        return house

    yield make
    async with AsyncExitStack() as stack:
        for house in made:
            if hasattr(house, "node"):
                stack.push_async_callback(house.stop)


@pytest.fixture
async def house(houses: Callable[..., House]) -> House:
    return await houses().start()
