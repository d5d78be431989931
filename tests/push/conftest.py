"""What the push room's tests share."""

import asyncio
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import uvloop

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(1, str(Path(__file__).parents[1] / "gateway"))

from push_fakes import MemoryWork, Nodes

from longwire.testing import ManualClock


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], object]]:
    """The node runs on uvloop and nowhere else."""
    if item.path.name == "test_with_a_node.py":
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def nodes(clock: ManualClock) -> Nodes:
    return Nodes(clock)


@pytest.fixture
def work(clock: ManualClock) -> MemoryWork:
    return MemoryWork(clock)
