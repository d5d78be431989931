"""Each engine: clients are served once it has started, and what it was told survives its death."""

import asyncio
import socket
import threading
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from kazoo.client import KazooClient
from redis.asyncio.cluster import RedisCluster as ClusterClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from longwire.testing.engines import Kafka, MariaDb, Nginx, Postgres, Redis, RedisCluster, ZooKeeper, free_ports
from longwire.testing.faults import FaultProxy


def test_redis_keeps_what_it_was_told_over_a_kill(tmp_path: Path) -> None:
    with Redis(tmp_path) as redis:
        port = redis.port
        assert redis.call("SET lw:a 1") == "+OK"
        redis.kill()
        redis.restart()
        assert redis.port == port
        assert redis.call("GET lw:a") == "$1\r\n1"


def test_redis_without_data_comes_back_empty(tmp_path: Path) -> None:
    with Redis(tmp_path, keeps_data=False) as redis:
        redis.call("SET lw:a 1")
        redis.restart()
        assert redis.call("GET lw:a") == "$-1"


async def test_a_redis_cluster_spreads_its_keys_over_three_masters(redis_cluster: RedisCluster) -> None:
    prefix = uuid.uuid4().hex
    async with ClusterClient.from_url(redis_cluster.url) as client:
        for number in range(60):
            await client.set(f"{prefix}{number}", number)
    held = [node.call(f"KEYS {prefix}*").count(prefix) for node in redis_cluster.nodes]
    assert sum(held) == 60
    assert all(held), held
    assert redis_cluster.urls == [f"redis://127.0.0.1:{port}/0" for port in redis_cluster.ports]


@pytest.mark.chaos
def test_a_redis_cluster_comes_back_whole_after_a_kill(tmp_path: Path) -> None:
    with RedisCluster(tmp_path) as cluster:
        urls = cluster.urls
        cluster.nodes[0].kill()
        assert not cluster.is_running
        cluster.start()
        cluster.kill()
        cluster.restart()
        assert cluster.is_running
        assert cluster.urls == urls


def test_zookeeper_serves_sessions_as_soon_as_it_has_started(tmp_path: Path) -> None:
    with ZooKeeper(tmp_path) as zookeeper:
        for end in (zookeeper.kill, zookeeper.stop):
            client = KazooClient(zookeeper.hosts, timeout=2)
            client.start(timeout=5)
            try:
                client.ensure_path("/longwire/a")
                client.create("/longwire/a/b", b"x", sequence=True)
                kept = client.get_children("/longwire/a")
            finally:
                client.stop()
                client.close()
            end()
            zookeeper.restart()
        assert len(kept) == 2, "the node made before the kill"


@pytest.mark.parametrize("kind", [MariaDb, Postgres])
@pytest.mark.parametrize("is_durable", [False, pytest.param(True, marks=pytest.mark.chaos)], ids=["quick", "durable"])
async def test_sql_keeps_what_was_committed_over_a_kill(
    kind: type[MariaDb] | type[Postgres], is_durable: bool, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with kind(closed / kind.name, durable=is_durable) as engine:
        url = engine.fresh_url()
        await _execute(url, "CREATE TABLE t (a INT)", "INSERT INTO t VALUES (7)")
        await asyncio.to_thread(engine.kill)
        await asyncio.to_thread(engine.restart)
        assert await _execute(url, "SELECT a FROM t") == 7


@pytest.mark.parametrize("name", ["mariadb_engine", "postgres_engine"])
async def test_fresh_databases_are_empty_and_apart(name: str, request: pytest.FixtureRequest) -> None:
    engine: MariaDb | Postgres = request.getfixturevalue(name)
    first, second = engine.fresh_url(), engine.fresh_url()
    for url in (first, second):
        await _execute(url, "CREATE TABLE t (a INT)", "INSERT INTO t VALUES (1)")
    assert await _execute(first, "SELECT COUNT(*) FROM t") == 1
    assert await _execute(engine.url, "SELECT 1") == 1


def test_the_settings_of_durability_are_what_they_are_called(tmp_path: Path, mariadb_engine: MariaDb) -> None:
    assert mariadb_engine.execute("SELECT @@innodb_flush_log_at_trx_commit").strip() == "2"
    with MariaDb(tmp_path / "mariadb", durable=True) as durable:
        assert durable.execute("SELECT @@innodb_flush_log_at_trx_commit").strip() == "1"
    with Postgres(tmp_path / "postgres", durable=True) as postgres:
        assert postgres.execute("SHOW fsync").strip() == "on"
        data = postgres.data
    assert data.exists(), "a stop leaves the data for the next start"


def test_the_folder_of_postgres_goes_with_the_engine(tmp_path: Path) -> None:
    postgres = Postgres(tmp_path)
    data = postgres.data
    assert data.exists()
    del postgres
    assert data == tmp_path or not data.exists()


@pytest.mark.chaos
def test_kafka_keeps_what_it_acknowledged_over_a_kill(kafka_engine: Kafka, tmp_path: Path) -> None:
    _produce(kafka_engine, "t1", b"shared")
    with Kafka(tmp_path) as kafka:
        servers = kafka.servers
        _produce(kafka, "t1", b"kept")
        kafka.kill()
        kafka.restart()
        assert kafka.servers == servers
        assert _consume(kafka, "t1") == b"kept"
    assert _consume(kafka_engine, "t1") == b"shared"


@pytest.mark.chaos
def test_kafka_sends_its_clients_through_the_proxy_it_was_told_of(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with Kafka(tmp_path, advertised=f"127.0.0.1:{port}") as kafka, FaultProxy(kafka.servers, port) as proxy:
        _produce(kafka, "t1", b"through")
        assert proxy.connections_seen > 0
        proxy.blackhole()
        producer = Producer({"bootstrap.servers": kafka.servers, "message.timeout.ms": 500})
        failed: list[object] = []
        producer.produce("t1", b"lost", on_delivery=lambda error, _: failed.append(error))
        producer.flush(10)
        assert len(failed) == 1
        assert failed[0] is not None


class _Hello(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        pass


def test_nginx_passes_http_and_streams_on(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), _Hello) as backend:
        threading.Thread(target=backend.serve_forever, daemon=True).start()
        config = f"""
events {{}}
http {{
    upstream web {{ server 127.0.0.1:{backend.server_port}; }}
    server {{ listen 127.0.0.1:@PORT0@; location / {{ proxy_pass http://web; }} }}
}}
stream {{
    server {{ listen 127.0.0.1:@PORT1@; proxy_pass 127.0.0.1:{backend.server_port}; }}
}}
"""
        with Nginx(tmp_path, config) as nginx:
            for port in nginx.ports:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
                    assert answer.read() == b"hello"
            nginx.kill()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", nginx.port), 1)
            nginx.restart()
            urllib.request.urlopen(f"http://127.0.0.1:{nginx.port}/", timeout=5).close()
        backend.shutdown()


async def _execute(url: str, *statements: str) -> object:
    """The first cell of the last statement's answer."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            for statement in statements:
                result = await connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        await engine.dispose()


def _produce(kafka: Kafka, topic: str, value: bytes) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.servers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(10)
    producer = Producer({"bootstrap.servers": kafka.servers, "acks": "all"})
    failed: list[object] = []
    producer.produce(topic, value, on_delivery=lambda error, _: failed.append(error) if error else None)
    assert producer.flush(10) == 0
    assert not failed


def _consume(kafka: Kafka, topic: str) -> bytes:
    """The topic's first message."""
    consumer = Consumer({"bootstrap.servers": kafka.servers, "group.id": uuid.uuid4().hex})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        message = consumer.poll(20)
        assert message is not None
        assert message.error() is None
        value: bytes = message.value()
        return value
    finally:
        consumer.close()
