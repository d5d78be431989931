"""Clusters on the shared ZooKeeper, and on one that a test may break."""

import itertools
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from members import Cluster

from longwire.testing.engines import ZooKeeper

_bases = itertools.count()


@pytest.fixture
async def cluster(zookeeper_engine: ZooKeeper) -> AsyncIterator[Cluster]:
    async with AsyncExitStack() as stack:
        yield Cluster(zookeeper_engine, f"/test-{next(_bases)}", stack)


@pytest.fixture
async def fragile(tmp_path) -> AsyncIterator[Cluster]:
    """A cluster whose ZooKeeper is the test's own, to be stopped, frozen and emptied."""
    with ZooKeeper(tmp_path) as engine:
        async with AsyncExitStack() as stack:
            yield Cluster(engine, "/longwire", stack)
