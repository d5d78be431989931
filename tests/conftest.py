"""Real engines, one of each for the whole run: started when first asked for, stopped at its end.

Tests share them: each takes a prefix, database, topic or path of its own. A test that stops or freezes an engine
starts one for itself.
"""

import os
import shutil
from collections.abc import Iterator
from typing import TypeVar

import pytest
from xdist.scheduler import LoadFileScheduling

from longwire.adapters.sql.sqlite import FILE_NAME, SqliteDatabase
from longwire.testing.engines import Engine, Kafka, MariaDb, OpenSearch, Postgres, Redis, RedisCluster, ZooKeeper

E = TypeVar("E", bound=Engine)

# A process that a test starts has no console unless the test asks for one: each is a second process.
os.environ.setdefault("LONGWIRE_CONSOLE_PORT", "none")

_TOGETHER = {
    "tests/cluster/": "a cluster",
    "tests/console/": "a console and a browser",
    "tests/logs/": "a run and a search engine",
    "tests/adapters/kafka/": "Kafka and ZooKeeper",
    "tests/adapters/zookeeper/": "Kafka and ZooKeeper",
    "tests/app/doctor/test_engines.py": "Kafka and ZooKeeper",
    "tests/app/test_cluster.py": "Kafka and ZooKeeper",
    "tests/contracts/test_receipt_log.py": "Kafka and ZooKeeper",
    "tests/contracts/test_registry.py": "Kafka and ZooKeeper",
    "tests/contracts/test_uplink_log.py": "Kafka and ZooKeeper",
    "tests/testing/engines/test_engines.py": "Kafka and ZooKeeper",
}
"""Tests that share what takes long to start, or eats while it stands: what has one name goes to one worker."""


class _ByFileOrFolder(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return next((name for path, name in _TOGETHER.items() if file.startswith(path)), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> _ByFileOrFolder:
    return _ByFileOrFolder(config, log)


@pytest.fixture(scope="session", autouse=True)
def _migrated_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An empty data folder begins with a file whose schema stands: migrating takes longer than most tests do."""
    template = tmp_path_factory.mktemp("migrated")
    start = SqliteDatabase.start

    async def start_migrated(database: SqliteDatabase) -> None:
        folder = database._folder
        if folder.is_dir() and not any(folder.iterdir()):
            if not (template / FILE_NAME).exists():
                made = SqliteDatabase(template)
                await start(made)
                await made.stop()
            shutil.copy(template / FILE_NAME, folder)
        await start(database)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqliteDatabase, "start", start_migrated)
        yield


def _running(kind: type[E], factory: pytest.TempPathFactory) -> Iterator[E]:
    with kind(factory.mktemp(kind.name)) as engine:
        yield engine


@pytest.fixture(scope="session")
def redis_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    yield from _running(Redis, tmp_path_factory)


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    yield from _running(RedisCluster, tmp_path_factory)


@pytest.fixture(scope="session")
def zookeeper_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZooKeeper]:
    yield from _running(ZooKeeper, tmp_path_factory)


@pytest.fixture(scope="session")
def kafka_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    yield from _running(Kafka, tmp_path_factory)


@pytest.fixture(scope="session")
def mariadb_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDb]:
    yield from _running(MariaDb, tmp_path_factory)


@pytest.fixture(scope="session")
def postgres_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    yield from _running(Postgres, tmp_path_factory)


@pytest.fixture(scope="session")
def opensearch_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenSearch]:
    yield from _running(OpenSearch, tmp_path_factory)
