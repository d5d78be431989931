"""The engines that the processes of a cluster share: SQL, Redis, Kafka and ZooKeeper.

    gateway  ZooKeeper · Redis* · Kafka* · SQL*        api    ZooKeeper · SQL · Redis* · Kafka*
    route    ZooKeeper · SQL · Redis*                  sink   ZooKeeper · SQL · Kafka*

What has to answer once before the process starts; * may be away then, and is waited for by whoever needs it. Only this
module imports the libraries of the extra ``cluster``. Everything in it is made on the loop, after a fork.
"""

import asyncio
import contextlib
import logging
from functools import partial

from sqlalchemy.engine import make_url

from longwire.accounts.token_copies import CheckedTokens
from longwire.adapters.kafka import (
    KafkaDeadLetters,
    KafkaProducer,
    KafkaReceipts,
    KafkaRefused,
    KafkaSettings,
    KafkaUplink,
    ReceiptsConsumer,
    StoredUplink,
)
from longwire.adapters.redis import RedisRoutes, RedisServer, RedisTokens, RedisWaiting, connect
from longwire.adapters.sql.migrate import SchemaMismatch
from longwire.adapters.sql.shared import SharedDatabase, UnknownEngine
from longwire.adapters.zookeeper.client import ZooKeeperClient
from longwire.adapters.zookeeper.leadership import ZooKeeperLeadership
from longwire.adapters.zookeeper.registry import ZooKeeperRegistry
from longwire.api import Unready
from longwire.app.engines import EngineSet, Job, StartFailed, Step, Stores, nothing, stores_on
from longwire.app.roles import Role
from longwire.app.settings import Settings
from longwire.clock import Clock
from longwire.errors import RegistryUnavailable, StoreUnavailable

log = logging.getLogger(__name__)

ANSWERS_WITHIN_S = 30.0
"""How long an engine that a role cannot start without may take to answer the first time."""
_POLL_S = 1.0
_WEBHOOKS_EVERY_S = 2.0
_STORE_AGAIN_S = 1.0
_NEEDS_KAFKA = frozenset({Role.GATEWAY, Role.API, Role.SINK})


def cluster(settings: Settings, clock: Clock, node_id: str) -> EngineSet:
    """The engines of one process of a cluster. Raises StartFailed for a setting that an engine's library refuses."""
    roles = settings.roles
    try:
        store, redis = SharedDatabase(_secret(settings.store_url)), _redis(settings)
        kafka = _kafka_settings(settings)
    except (ValueError, UnknownEngine) as error:
        raise StartFailed(str(error)) from error
    prefix = "lw" if settings.cluster_name == "longwire" else settings.cluster_name
    base = f"/{settings.cluster_name}"
    zookeeper = ZooKeeperClient(
        settings.zookeeper_hosts or "",
        session_timeout_s=settings.zookeeper_session_s,
        connect_within_s=ANSWERS_WITHIN_S,
    )
    registry = ZooKeeperRegistry(zookeeper, clock, base=base)
    leadership = ZooKeeperLeadership(zookeeper, node_id, base=base)
    inbox_hints = RedisWaiting(redis, "w", prefix)
    push_hints = RedisWaiting(redis, "p", prefix)
    routes = RedisRoutes(redis, prefix)
    stores = stores_on(store, settings, clock, inbox_hints, push_hints, _POLL_S)
    tokens = CheckedTokens(stores.accounts, RedisTokens(redis, prefix), clock)
    producer = KafkaProducer(kafka)
    uplink_reader = StoredUplink(producer, store, stores.uplink)
    place = make_url(_secret(settings.store_url)).render_as_string(hide_password=True)
    opening = _Opening(store, place, stores, may_come_late=roles == {Role.GATEWAY})

    async def start_leadership() -> None:
        leadership.start()

    async def stop_redis() -> None:
        for part in (routes, inbox_hints, push_hints):
            await part.aclose()
        await redis.aclose()

    steps = [
        Step(partial(_start_zookeeper, zookeeper, registry), zookeeper.stop),
        Step(nothing, registry.stop),
        Step(start_leadership, leadership.stop),
        Step(opening.start, store.stop),
        Step(partial(_look_for_redis, redis), stop_redis),
    ]
    if roles & _NEEDS_KAFKA:
        steps.append(Step(partial(_start_kafka, producer), producer.stop))
    if Role.SINK in roles:
        steps.append(Step(nothing, uplink_reader.stop))
    jobs = [
        Job("the opening of the store", opening.run),
        Job("the watch of webhooks", partial(_watch_webhooks, stores)),
        Job("the bars of changed tokens", tokens.run),
        Job("the hints of whose inbox has something", partial(inbox_hints.run, stores.messages.waits_in)),
        Job("the hints of whom a push waits for", stores.push_waiting.run),
    ]
    meters = {
        "sql_read": store.reads,
        "sql_commit": store.commits,
        "redis": redis.times,
        "zookeeper": zookeeper.times,
    }
    up = {
        "sql": lambda: store.is_writable,
        "redis": lambda: not redis.is_away,
        "zookeeper": lambda: zookeeper.is_connected,
    }
    if roles & _NEEDS_KAFKA:
        meters["kafka"], up["kafka"] = producer.times, lambda: not producer.is_away
    if Role.SINK in roles:
        jobs.append(Job("receipts of pushes", partial(_merge_receipts, kafka, stores)))
    return EngineSet(
        is_shared=True,
        database=store,
        stores=stores,
        registry=registry,
        routes=routes,
        leadership=leadership,
        inbox_hints=inbox_hints,
        tokens=tokens,
        bar_tokens=tokens.bar,
        uplink=KafkaUplink(producer),
        uplink_reader=uplink_reader,
        dead_letters=KafkaDeadLetters(producer, store, stores.uplink, clock),
        receipts=KafkaReceipts(producer),
        steps=tuple(steps),
        jobs=tuple(jobs),
        meters=meters,
        up=up,
        unready=partial(_unready, roles, store, redis, producer),
    )


class _Opening:
    """Opens the store. A gateway starts without it: devices whose tokens are known come in all the same."""

    def __init__(self, store: SharedDatabase, place: str, stores: Stores, *, may_come_late: bool) -> None:
        """``place``: what operators know the store by."""
        self._store = store
        self._place = place
        self._stores = stores
        self._may_come_late = may_come_late
        self._is_started = False
        self._is_open = False

    async def start(self) -> None:
        """Raises StartFailed where the schema is another's, or where the store has to answer and does not."""
        over = asyncio.get_running_loop().time() + (0.0 if self._may_come_late else ANSWERS_WITHIN_S)
        while True:
            try:
                await self._open()
            except StoreUnavailable as error:
                if asyncio.get_running_loop().time() < over:
                    await asyncio.sleep(_STORE_AGAIN_S)
                    continue
                if not self._may_come_late:
                    raise StartFailed(
                        f"the store at {self._place} (store_url) does not answer within {ANSWERS_WITHIN_S:g} s: {error}"
                    ) from error
                log.warning("the store at %s (store_url) does not answer; going on: %s", self._place, error)
            return

    async def run(self) -> None:
        """Goes on trying, where ``start`` was let go without it. Raises StartFailed for a schema of another program."""
        while not self._is_open:
            await asyncio.sleep(_STORE_AGAIN_S)
            with contextlib.suppress(StoreUnavailable):
                await self._open()
                log.warning("the store at %s answers", self._place)

    async def _open(self) -> None:
        try:
            if not self._is_started:
                await self._store.start()
        except SchemaMismatch as error:
            raise StartFailed(f"the store at {self._place} (store_url): {error}") from error
        self._is_started = True
        await self._stores.messages.start()
        await self._stores.webhooks.start()
        self._is_open = True


async def _start_zookeeper(client: ZooKeeperClient, registry: ZooKeeperRegistry) -> None:
    try:
        await client.start()
        await registry.start()
    except RegistryUnavailable as error:
        await client.stop()
        raise StartFailed(
            f"ZooKeeper at {client.hosts} (zookeeper_hosts) does not answer within {ANSWERS_WITHIN_S:g} s: {error}"
        ) from error


async def _look_for_redis(redis: RedisServer) -> None:
    try:
        await redis.ping()
    except StoreUnavailable as error:
        log.warning("Redis at %s (redis_url) does not answer; going on without it: %s", redis.name, error)


async def _start_kafka(producer: KafkaProducer) -> None:
    try:
        await producer.start()
    except KafkaRefused as error:
        raise StartFailed(str(error)) from error


async def _watch_webhooks(stores: Stores) -> None:
    """Events are kept for those webhooks that the last look found."""
    while True:
        await asyncio.sleep(_WEBHOOKS_EVERY_S)
        with contextlib.suppress(StoreUnavailable):  # then no events are kept either
            await stores.webhooks.start()


async def _merge_receipts(kafka: KafkaSettings, stores: Stores) -> None:
    await ReceiptsConsumer(kafka, stores.pushes.merge).run()


def _unready(
    roles: frozenset[Role], store: SharedDatabase, redis: RedisServer, producer: KafkaProducer
) -> Unready | None:
    """What keeps the first of the roles from its work; must not wait."""
    if Role.GATEWAY in roles and redis.is_away:
        detail = "the route table does not answer: new connections are refused, those that stand go on"
        return Unready("store-unavailable", detail)
    if roles - {Role.GATEWAY} and not store.is_writable:
        return Unready("store-unavailable", "the store does not take writes")
    if Role.ROUTE in roles and redis.is_away:
        return Unready("store-unavailable", "the route table does not answer: pushes wait")
    if Role.SINK in roles and producer.is_away:
        return Unready("store-unavailable", "Kafka does not answer: what devices sent waits")
    return None


def _secret(setting: object) -> str:
    return str(getattr(setting, "get_secret_value", str)())


def _redis(settings: Settings) -> RedisServer:
    return connect(_secret(settings.redis_url), settings.redis_timeout_s)


def _kafka_settings(settings: Settings) -> KafkaSettings:
    return KafkaSettings(
        settings.kafka_servers or "",
        topic_prefix=settings.cluster_name,
        partitions=settings.kafka_partitions,
        replication=settings.kafka_replication,
        options=settings.kafka_options,
    )
