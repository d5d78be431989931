"""Real engines for tests: one process each on loopback, on a private folder, gone when the test is.

    with Redis(tmp_path) as redis:
        client = connect(redis.url)
        redis.freeze()

Blocking and without asyncio, so that an engine may be stopped while the loop under test runs. ``make engines``
installs what is missing; an engine that is not installed raises ``EngineMissing`` with the command to run.
"""

from longwire.testing.engines.base import Engine, EngineFailed, EngineMissing, free_ports
from longwire.testing.engines.chromium import Chromium
from longwire.testing.engines.install import install
from longwire.testing.engines.kafka import Kafka
from longwire.testing.engines.nginx import Nginx
from longwire.testing.engines.opensearch import OpenSearch
from longwire.testing.engines.prometheus import Prometheus
from longwire.testing.engines.redis import Redis, RedisCluster
from longwire.testing.engines.rsyslog import Rsyslog
from longwire.testing.engines.sql import MariaDb, Postgres
from longwire.testing.engines.zookeeper import ZooKeeper

__all__ = [
    "Chromium",
    "Engine",
    "EngineFailed",
    "EngineMissing",
    "Kafka",
    "MariaDb",
    "Nginx",
    "OpenSearch",
    "Postgres",
    "Prometheus",
    "Redis",
    "RedisCluster",
    "Rsyslog",
    "ZooKeeper",
    "free_ports",
    "install",
]
