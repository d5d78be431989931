"""Real engines for tests: one process each on loopback, on a private folder, gone when the test is.

    with Redis(tmp_path) as redis:
        client = connect(redis.url)
        redis.freeze()

Blocking and without asyncio, so that an engine may be stopped while the loop under test runs. ``make engines``
installs what is missing; an engine that is not installed raises ``EngineMissing`` with the command to run.
"""

from longwire.testing.engines.base import Engine, EngineFailed, EngineMissing, free_ports
from longwire.testing.engines.install import install
from longwire.testing.engines.kafka import Kafka
from longwire.testing.engines.nginx import Nginx
from longwire.testing.engines.redis import Redis, RedisCluster
from longwire.testing.engines.sql import MariaDb, Postgres
from longwire.testing.engines.zookeeper import ZooKeeper

__all__ = [
    "Engine",
    "EngineFailed",
    "EngineMissing",
    "Kafka",
    "MariaDb",
    "Nginx",
    "Postgres",
    "Redis",
    "RedisCluster",
    "ZooKeeper",
    "free_ports",
    "install",
]
