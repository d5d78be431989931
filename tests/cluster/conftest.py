"""One set of engines and one cluster for this folder, as long as it stays whole.

A test may stop and freeze what it likes, and brings it back. The next test gets the same cluster, or, where that one
is not whole or the test before has failed, a new one.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster_house import a_cluster, back, go_away

from longwire.client import OutboxLimits
from longwire.testing.cluster import Cluster, Mesh, SharedEngines
from longwire.testing.engines import Engine
from longwire.testing.spans import SpanCollector

_FAILED = pytest.StashKey[bool]()
_NUMBERS = itertools.count(1)


class Standing:
    """The cluster that tests share, and the engines under it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.collector = SpanCollector().start()
        self._engines: SharedEngines | None = None
        self._cluster: Cluster | None = None

    def engines(self) -> SharedEngines:
        if self._engines is None:
            self._engines = SharedEngines.start(self._folder / "engines")
        for engine in self._engines.all():
            if engine.is_running:
                engine.thaw()
            else:
                engine.start()
        return self._engines

    def cluster(self) -> Cluster:
        engines = self.engines()
        if self._cluster is not None and not all(
            one.is_running and one.is_ready() for one in self._cluster.processes()
        ):
            self.discard()
        if self._cluster is None:
            folder = self._folder / f"cluster{next(_NUMBERS)}"
            settings = {"LONGWIRE_OTLP_URL": self.collector.url}
            self._cluster = a_cluster(folder, engines, gateways=3, apis=2, routes=2, sinks=2, settings=settings).start()
        return self._cluster

    def discard(self) -> None:
        """Stops the cluster: the next test gets another one."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            cluster.stop()

    def close(self) -> None:
        self.discard()
        self.collector.stop()
        if self._engines is not None:
            self._engines.stop()


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    standing = Standing(tmp_path_factory.mktemp("cluster"))
    yield standing
    standing.close()


@pytest.fixture
def cluster(standing: Standing, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three gateways, and two of each other role, that stand and serve."""
    cluster = standing.cluster()
    yield cluster
    if request.node.stash.get(_FAILED, True):
        sys.stderr.write(cluster.tails())
        standing.discard()


@pytest.fixture
def collector(standing: Standing) -> SpanCollector:
    """Where the cluster's processes send their traces."""
    return standing.collector


@pytest.fixture
def engines(cluster: Cluster) -> SharedEngines:
    """Under the cluster; whatever the test has stopped or frozen comes back behind it."""
    return cluster.engines


@pytest.fixture
def away(engines: SharedEngines) -> Iterator[Callable[[Engine, str], None]]:
    """``go_away``; whatever has gone comes back behind the test, if not before."""
    yield go_away
    for engine in engines.all():
        back(engine)


@pytest.fixture
def prefix() -> str:
    """What the names of a test's devices begin with: the cluster is other tests' too."""
    return f"t{next(_NUMBERS)}"


@pytest.fixture
def mesh(cluster: Cluster, prefix: str) -> Iterator[Mesh]:
    """Twelve devices, where the api sends them."""
    with Mesh(cluster, 12, prefix=prefix) as mesh:
        yield mesh


@pytest.fixture
def strict(cluster: Cluster, prefix: str) -> Iterator[Mesh]:
    """The same, with one message under way at a time: their order holds through refusals too (client/outbox.py)."""
    with Mesh(cluster, 12, prefix=prefix, outbox=OutboxLimits(in_flight=1)) as mesh:
        yield mesh


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report
