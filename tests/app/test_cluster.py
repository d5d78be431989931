"""Processes on the engines of a cluster: each role starts with what it needs, and says what it lacks."""

import asyncio
import itertools
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from longwire.adapters.redis import RedisTokens, connect
from longwire.app import cluster, engines
from longwire.app.run import Addresses, OnStarted, Process, StartFailed
from longwire.app.settings import Settings, load
from longwire.app.store_schema import check_store, migrate_store
from longwire.application import Longwire
from longwire.cli.first_keys import ServeKeys
from longwire.errors import StoreUnavailable
from longwire.model import Credential
from longwire.testing.engines import Kafka, MariaDb, Redis, ZooKeeper, free_ports
from longwire.testing.faults import FaultProxy

sys.path.insert(0, str(Path(__file__).parents[1] / "gateway"))

from certificates import self_signed

_names = itertools.count(1)


@pytest.fixture(scope="module")
def flags(
    mariadb_engine: MariaDb, redis_engine: Redis, zookeeper_engine: ZooKeeper, kafka_engine: Kafka
) -> dict[str, Any]:
    """What a process of one cluster is started with; the store is there."""
    store_url = mariadb_engine.fresh_url()
    asyncio.run(migrate_store(store_url))
    return {
        "store_url": store_url,
        "redis_url": redis_engine.url,
        "kafka_servers": kafka_engine.servers,
        "zookeeper_hosts": zookeeper_engine.hosts,
        "cluster_secret": "s" * 32,
        "cluster_name": f"app-{next(_names)}",
        "kafka_partitions": 2,
        "port": 0,
        "http_port": 0,
        "internal_port": 0,
    }


Start = Callable[..., Awaitable[tuple[Process, Addresses]]]


@pytest.fixture
async def start(flags: dict[str, Any], tmp_path) -> AsyncIterator[Start]:
    made: list[Process] = []

    async def begin(on_started: OnStarted | None = None, **own: Any) -> tuple[Process, Addresses]:
        settings: Settings = load({"data_dir": tmp_path / "data"} | flags | own, {}).settings
        process = Process(settings, Longwire())
        made.append(process)
        return process, await process.start(on_started)

    yield begin
    await asyncio.gather(*(process.stop() for process in made))


@pytest.fixture
def away() -> Iterator[Callable[[str], FaultProxy]]:
    """Puts a proxy before the engine of a URL or an address."""
    proxies: list[FaultProxy] = []

    def put(address: str) -> FaultProxy:
        parts = urlsplit(address if "//" in address else f"//{address}")
        assert parts.hostname is not None
        assert parts.port is not None
        proxies.append(FaultProxy((parts.hostname, parts.port)))
        proxies[-1].start()
        return proxies[-1]

    yield put
    for proxy in proxies:
        proxy.stop()


async def ready(address: str | None) -> str:
    """The code of ``/readyz``; "ready" where it is."""
    async with httpx.AsyncClient() as client:
        answer = (await client.get(f"{address}/readyz")).json()
    return answer.get("status") if answer.get("status") == "ready" else answer["code"]


async def until(is_so: Callable[[], Awaitable[bool]], within_s: float = 15) -> None:
    over = time.monotonic() + within_s
    while not await is_so():
        assert time.monotonic() < over
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("roles", ["gateway", "api", "route", "sink", "gateway,api,route,sink"])
async def test_every_role_starts_with_the_ports_that_are_its_own(start: Start, roles: str) -> None:
    process, addresses = await start(roles=roles)
    assert (addresses.device_address is not None) == ("gateway" in roles)
    assert (addresses.http_url is not None) == ("api" in roles)
    assert await ready(addresses.internal_url) == "ready"
    system = process.system
    assert (system.node is not None) == ("gateway" in roles)
    assert (system.worker is not None) == ("route" in roles)
    assert (system.sink is not None) == ("sink" in roles)


async def test_a_node_is_listed_with_the_address_of_its_internal_port(start: Start) -> None:
    _, gateway = await start(roles="gateway", node_weight=2.5)
    other, _ = await start(roles="route")

    async def is_listed() -> bool:
        return [node.internal_url for node in other.system.engines.registry.nodes()] == [gateway.internal_url]

    await until(is_listed)
    assert other.system.engines.registry.nodes()[0].weight == 2.5


@pytest.mark.parametrize("is_secured", [False, True])
async def test_a_process_without_a_node_asks_the_nodes_of_others(
    start: Start, tmp_path: Path, is_secured: bool
) -> None:
    secured = {}
    if is_secured:
        certificate, key = self_signed(tmp_path)
        secured = {"internal_certificate": certificate, "internal_certificate_key": key, "internal_ca": certificate}
    gateway, addresses = await start(roles="gateway", **secured)
    api, _ = await start(roles="api", **secured)
    assert addresses.internal_url is not None
    assert addresses.internal_url.startswith("https:" if is_secured else "http:")
    node_id = gateway.system.node_id

    async def answers() -> bool:
        listed = {node.node_id for node in api.system.engines.registry.nodes()}
        return node_id in listed and await api.system.link.report(node_id) is not None

    await until(answers)


async def test_an_internal_certificate_that_does_not_load_is_named(start: Start, tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=r"internal_certificate .* does not load"):
        await start(roles="gateway", internal_certificate=tmp_path / "gone.pem")


async def test_a_store_without_tables_is_refused_with_what_to_do(start: Start, mariadb_engine: MariaDb) -> None:
    url = mariadb_engine.fresh_url()
    with pytest.raises(StartFailed, match="run `longwire migrate` first"):
        await start(roles="api", store_url=url)
    with pytest.raises(StartFailed, match="run `longwire migrate` first"):
        await start(roles="gateway", store_url=url)
    assert await migrate_store(url)
    await check_store(url)
    assert await migrate_store(url) == []
    await start(roles="api", store_url=url)


@pytest.mark.parametrize("name", ["store_url", "zookeeper_hosts"])
async def test_an_engine_that_a_role_cannot_do_without_is_named_when_it_does_not_answer(
    start: Start, flags: dict[str, Any], away, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(cluster, "ANSWERS_WITHIN_S", 1.0)
    address = flags[name]
    proxy = away(address)
    proxy.refuse()
    place = urlsplit(address).netloc.rpartition("@")[2] or address
    with pytest.raises(StartFailed, match=rf"\({name}\) does not answer within 1 s"):
        await start(roles="route", **{name: address.replace(place.partition("/")[0], proxy.address)})


async def test_a_gateway_starts_without_store_redis_and_kafka_and_takes_them_when_they_come(
    start: Start, flags: dict[str, Any], away
) -> None:
    store, redis = away(flags["store_url"]), away(flags["redis_url"])
    for proxy in (store, redis):
        proxy.refuse()
    process, addresses = await start(
        roles="gateway",
        store_url=flags["store_url"].replace(urlsplit(flags["store_url"]).netloc.rpartition("@")[2], store.address),
        redis_url=f"redis://{redis.address}/0",
        kafka_servers=f"127.0.0.1:{free_ports(1)[0]}",
    )
    assert await ready(addresses.internal_url) == "store-unavailable"
    for proxy in (store, redis):
        proxy.pass_on()

    async def is_whole() -> bool:
        try:
            await process.system.engines.stores.accounts.find_devices(["nobody"])
        except StoreUnavailable:
            return False
        return await ready(addresses.internal_url) == "ready"

    await until(is_whole)


async def test_a_token_that_is_revoked_while_redis_is_away_is_barred_when_it_is_back(
    start: Start, flags: dict[str, Any], away
) -> None:
    redis = away(flags["redis_url"])
    api, _ = await start(roles="api", redis_url=f"redis://{redis.address}/0")
    token_hash = b"\x11" * 32
    copies = RedisTokens(connect(flags["redis_url"]), flags["cluster_name"])
    await copies.put_many([(token_hash, Credential(1, "d-1", 1 << 50, False, False, 0), True)])
    redis.refuse()
    redis.cut()
    assert api.system.engines.bar_tokens is not None
    await api.system.engines.bar_tokens([token_hash], 60)
    redis.pass_on()

    async def is_barred() -> bool:
        (copy,) = await copies.get_many([token_hash])
        return copy is not None and copy.credential is None

    try:
        assert not await is_barred()
        await until(is_barred)
    finally:
        await copies._server.aclose()


async def test_a_library_that_is_missing_is_named_with_its_extra() -> None:
    with (
        pytest.raises(StartFailed, match=r"pip install 'longwire\[cluster\]' \(missing: kazoo\)"),
        engines.extra_is_named(),
    ):
        raise ModuleNotFoundError(name="kazoo.client") from None


async def test_of_two_apis_that_start_together_one_makes_the_first_keys(
    start: Start, mariadb_engine: MariaDb, tmp_path: Path
) -> None:
    url = mariadb_engine.fresh_url()
    await migrate_store(url)
    folders = [tmp_path / "one", tmp_path / "two"]
    (process, _), _ = await asyncio.gather(
        *(start(ServeKeys(), roles="api", store_url=url, data_dir=folder) for folder in folders)
    )
    valid = [key for key in await process.system.api_keys.all_keys() if key.revoked_at_ms is None]
    assert len(valid) == 1
    assert [(folder / "credentials.json").exists() for folder in folders].count(True) == 1
