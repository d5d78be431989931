"""Redis of a test's own, to be stopped, frozen and emptied; and prefixes on the one that tests share."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from longwire.adapters.redis import RedisServer, connect
from longwire.testing.engines import Redis, RedisCluster

TIMEOUT_S = 1.0

_prefixes = itertools.count()


@pytest.fixture
def prefix() -> str:
    return f"own{next(_prefixes)}"


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Redis]:
    with Redis(tmp_path / "redis", keeps_data=False) as engine:
        yield engine


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[RedisCluster]:
    with RedisCluster(tmp_path / "cluster", keeps_data=False) as engine:
        yield engine


@pytest.fixture
async def own_server(own_redis: Redis) -> AsyncIterator[RedisServer]:
    server = connect(own_redis.url, TIMEOUT_S)
    yield server
    await server.aclose()


@pytest.fixture
async def cluster_server(own_cluster: RedisCluster) -> AsyncIterator[RedisServer]:
    server = connect(own_cluster.url.replace("redis:", "redis+cluster:"), TIMEOUT_S)
    yield server
    await server.aclose()


@pytest.fixture
async def server(redis_engine: Redis) -> AsyncIterator[RedisServer]:
    server = connect(redis_engine.url)
    yield server
    await server.aclose()
