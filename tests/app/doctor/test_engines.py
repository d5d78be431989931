"""What the doctor says of real engines, and of those that are not there."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis as RedisClient

from longwire.adapters.kafka import KafkaSettings
from longwire.adapters.kafka.topics import make_topics
from longwire.adapters.sql.shared import migrate_shared
from longwire.app.doctor import diagnose, engines
from longwire.app.doctor.engines import kafka, redis, store, zookeeper
from longwire.app.doctor.report import Finding, State
from longwire.app.settings import Settings
from longwire.testing.engines import Kafka, MariaDb, Postgres, Redis, RedisCluster, ZooKeeper, free_ports

SECRET = "hunter2-" * 8


def settings_on(**places: Any) -> Settings:
    """A cluster's settings whose engines are not there, but for those that are named."""
    nobody = free_ports(4)
    return Settings.model_validate(
        {
            "store_url": f"mysql+asyncmy://longwire:{SECRET}@127.0.0.1:{nobody[0]}/longwire",
            "redis_url": f"redis://longwire:{SECRET}@127.0.0.1:{nobody[1]}/0",
            "kafka_servers": f"127.0.0.1:{nobody[2]}",
            "zookeeper_hosts": f"127.0.0.1:{nobody[3]}",
            "cluster_secret": SECRET,
            "kafka_options": {"sasl.password": SECRET},
            **places,
        }
    )


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def states(findings: list[Finding]) -> dict[str, State]:
    return {finding.name: finding.state for finding in findings if finding.state is not State.OK}


async def test_engines_that_are_away_fail_and_no_secret_is_told(tmp_path: Path) -> None:
    found = await diagnose(settings_on(data_dir=tmp_path))
    away = {finding.area for finding in found.findings if finding.name == "reached" and finding.state is State.FAILURE}
    assert away == {"store", "Redis", "Kafka", "ZooKeeper"}
    assert found.state is State.FAILURE
    assert "hunter2" not in json.dumps([finding._asdict() for finding in found.findings])


async def test_an_engine_whose_library_fails_otherwise_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    found = await diagnose(settings_on(data_dir=tmp_path, store_url="mysql+asyncmy://x:y@127.0.0.1:1/z?nonsense=1"))
    store_says = [finding for finding in found.findings if finding.area == "store"]
    assert [finding.state for finding in store_says] == [State.UNKNOWN]
    assert {finding.area for finding in found.findings} >= {"Redis", "Kafka", "ZooKeeper"}


async def test_a_console_apart_needs_the_api_and_no_folder(tmp_path: Path) -> None:
    (nobody,) = free_ports(1)
    settings = Settings.model_validate(
        {
            "roles": ["console"],
            "console_api_url": f"http://127.0.0.1:{nobody}",
            "data_dir": tmp_path,
        }
    )
    found = await diagnose(settings)
    assert [finding.name for finding in found.findings if finding.area == "API"] == ["reached"]
    assert found.state is State.FAILURE
    assert "files" not in {finding.area for finding in found.findings}


async def test_redis_is_judged_by_its_policy_and_its_clock(redis_engine: Redis) -> None:
    settings = settings_on(redis_url=redis_engine.url)
    findings = by_name(await redis.look(settings))
    assert states(list(findings.values())) == {}
    assert set(findings) == {"reached", "clock", "version", "maxmemory-policy", "memory", "persistence"}
    with RedisClient.from_url(redis_engine.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        client.config_set("maxmemory", 1 << 20)
        try:
            findings = by_name(await redis.look(settings))
        finally:
            client.config_set("maxmemory", 0)
            client.config_set("maxmemory-policy", "noeviction")
    assert findings["maxmemory-policy"].state is State.FAILURE
    assert findings["maxmemory-policy"].command == "redis-cli config set maxmemory-policy noeviction"
    assert findings["memory"].state is State.WARNING


async def test_every_server_of_a_redis_cluster_is_looked_at(redis_cluster: RedisCluster) -> None:
    found = await redis.look(settings_on(redis_url=redis_cluster.url.replace("redis:", "redis+cluster:")))
    assert states(found) == {}
    assert by_name(found)["cluster"].fact.startswith("ok, 3 servers, 16384 of 16384 slots")
    assert len([finding for finding in found if finding.name == "version"]) == 3


def test_a_redis_that_cannot_write_its_disk_or_is_a_replica_fails() -> None:
    info = {"redis_version": "7.0.15", "role": "slave", "maxmemory_policy": "noeviction"}
    found = by_name(list(redis.judged("Redis", info | {"rdb_last_bgsave_status": "err"})))
    assert found["persistence"].state is State.FAILURE
    assert found["role"].state is State.FAILURE
    old = by_name(list(redis.judged("Redis", info | {"redis_version": "5.0.7"})))
    assert old["version"].state is State.FAILURE


async def test_mariadb_is_judged_by_its_settings_and_its_schema(mariadb_engine: MariaDb) -> None:
    url = mariadb_engine.fresh_url()
    found = by_name(await store.look(settings_on(store_url=url)))
    assert found["schema"] == Finding(
        "store",
        "schema",
        State.FAILURE,
        "the database has no tables of Longwire: run `longwire migrate` first",
        "",
        "longwire migrate",
    )
    # The engine of the tests gives durability up for speed.
    assert found["innodb_flush_log_at_trx_commit"].state is State.WARNING
    assert found["clock"].state is State.OK
    assert found["max_allowed_packet"].state is State.OK
    await migrate_shared(url)
    assert by_name(await store.look(settings_on(store_url=url)))["schema"].state is State.OK


async def test_postgres_is_judged_by_its_settings(postgres_engine: Postgres) -> None:
    found = by_name(await store.look(settings_on(store_url=postgres_engine.fresh_url())))
    assert found["version"].fact.startswith("PostgreSQL")
    assert found["fsync"].state is State.WARNING
    assert found["fsync"].command == "ALTER SYSTEM SET fsync = on; SELECT pg_reload_conf()"
    assert found["encoding"].state is State.OK
    assert found["clock"].state is State.OK


async def test_a_database_that_is_not_there_is_told_without_the_password(postgres_engine: Postgres) -> None:
    place = postgres_engine.url.rpartition("/")[0]
    found = await store.look(settings_on(store_url=f"{place}/nobodys"))
    assert [finding.state for finding in found] == [State.FAILURE]
    assert "nobodys" in found[0].fact
    assert ":***@" in found[0].fact


async def test_kafka_is_judged_by_its_brokers_and_our_topics(kafka_engine: Kafka) -> None:
    name = f"doctor-{time.time_ns()}"
    wanted = {"kafka_servers": kafka_engine.servers, "cluster_name": name, "kafka_options": {}}
    settings = settings_on(**wanted)
    found = by_name(await kafka.look(settings))
    assert found["brokers"].state is State.WARNING
    assert "the first process makes them" in found["topics"].fact
    assert found["message.max.bytes"].state is State.OK
    make_topics(KafkaSettings(kafka_engine.servers, topic_prefix=name, partitions=4))
    found = by_name(await kafka.look(settings))
    assert found[f"{name}.uplink"].state is State.WARNING
    assert "4 partitions, 1 copy" in found[f"{name}.uplink"].fact
    assert found[f"{name}.uplink.dead"].state is State.OK
    large = settings_on(**wanted, limits={"max_body_bytes": 2_000_000})
    assert by_name(await kafka.look(large))[f"{name}.uplink max.message.bytes"].state is State.FAILURE


async def test_zookeeper_is_judged_by_its_session_and_its_mode(zookeeper_engine: ZooKeeper) -> None:
    hosts = zookeeper_engine.hosts
    found = by_name(await zookeeper.look(settings_on(zookeeper_hosts=f"{hosts}/chroot")))
    assert found["version"].state is State.OK
    assert found[f"session with {hosts}"].state is State.OK
    assert found["mode"].state is State.WARNING
    long = by_name(await zookeeper.look(settings_on(zookeeper_hosts=hosts, zookeeper_session_s=60)))
    assert long[f"session with {hosts}"].fact.startswith("20 s granted of 60 s")
    assert "maxSessionTimeout" in long[f"session with {hosts}"].advice
    (nobody,) = free_ports(1)
    of_two = await zookeeper.look(settings_on(zookeeper_hosts=f"{hosts},127.0.0.1:{nobody}"))
    assert {finding.state for finding in of_two} == {State.OK, State.WARNING}


async def test_a_zookeeper_that_says_nothing_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zookeeper, "_WITHIN_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hosts = f"127.0.0.1:{silent.getsockname()[1]}"
        found = await zookeeper.look(settings_on(zookeeper_hosts=hosts))
    assert [finding.state for finding in found] == [State.FAILURE]


@pytest.mark.parametrize(
    ("theirs_s", "state"),
    [(100.0, State.OK), (100.9, State.OK), (98.0, State.WARNING), (60.0, State.FAILURE), (140.0, State.FAILURE)],
)
def test_a_clock_is_told_by_how_far_it_is_surely_off(theirs_s: float, state: State) -> None:
    assert engines.skew("store", theirs_s, 99.9, 100.1).state is state


def test_an_answer_that_took_long_leaves_the_clock_in_doubt() -> None:
    finding = engines.skew("store", 103.0, 97.0, 103.0)
    assert finding.state is State.OK
    assert "± 3000 ms" in finding.fact
