"""Kafka: its brokers, and our topics as they are."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from longwire.adapters.kafka import KafkaSettings
from longwire.app.doctor.engines import answered, away
from longwire.app.doctor.report import Finding, failure, ok, unknown, warning
from longwire.app.settings import Settings

AREA = "Kafka"
_WITHIN_S = 5.0
_CONNECTS_WITHIN_S = 3.0
_WAITS = "what devices send is answered with SENT 20"
_HEADERS_BYTES = 2_048
_DAYS_MS = 86_400_000
_KEPT_DAYS = 7
_COPIES = 3

Configs = dict[str, str]


async def look(settings: Settings) -> list[Finding]:
    """Every check of it."""
    kafka = KafkaSettings(
        settings.kafka_servers or "",
        topic_prefix=settings.cluster_name,
        partitions=settings.kafka_partitions,
        replication=settings.kafka_replication,
        options=settings.kafka_options,
    )
    # librdkafka would wait for the whole of its time, and not say why.
    refused = await asyncio.gather(*(_refusal(server) for server in kafka.servers.split(",")))
    if all(refused):
        return [away(AREA, "kafka_servers", kafka.servers, "; ".join(map(str, dict.fromkeys(refused))), _WAITS)]
    return await asyncio.to_thread(_look, kafka, settings.limits.max_body_bytes + _HEADERS_BYTES)


async def _refusal(server: str) -> str | None:
    """Why a broker takes no connection; None where it does, or where its address is for librdkafka to read."""
    host, _, port = server.strip().rpartition(":")
    if not host or not port.isdigit():
        return None
    try:
        async with asyncio.timeout(_CONNECTS_WITHIN_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except TimeoutError:
        return f"no connection within {_CONNECTS_WITHIN_S:g} s"
    except OSError as error:
        return str(error)
    writer.close()
    return None


def _look(kafka: KafkaSettings, message_bytes: int) -> list[Finding]:
    began = time.perf_counter()
    try:
        # Each refused connection would be a line on standard error.
        client = AdminClient(kafka.client({"error_cb": lambda _error: None}))
        cluster = client.list_topics(timeout=_WITHIN_S)
        found = [answered(AREA, kafka.servers, began, _brokers(len(cluster.brokers)))]
        topics = {
            name: cluster.topics.get(name) for name in (kafka.uplink_topic, kafka.dead_topic, kafka.receipts_topic)
        }
        there = [name for name, topic in topics.items() if topic is not None]
        resources = [ConfigResource(ConfigResource.Type.BROKER, str(next(iter(cluster.brokers))))]
        resources += [ConfigResource(ConfigResource.Type.TOPIC, name) for name in there]
        configs = [_configs(future.result(_WITHIN_S)) for future in _asked(client, resources)]
    except (KafkaException, ValueError, TimeoutError) as error:
        fault = error.args[0] if error.args else error
        why = fault.str() if hasattr(fault, "str") else str(fault) or type(error).__name__
        return [away(AREA, "kafka_servers", kafka.servers, why, _WAITS)]
    found += broker(configs[0], len(cluster.brokers), message_bytes, are_topics_made=len(there) == len(topics))
    for name, config in zip(there, configs[1:], strict=True):
        found += topic(kafka, name, topics[name], config, message_bytes)
    if len(there) < len(topics):
        missing = ", ".join(name for name in topics if name not in there)
        found.append(ok(AREA, "topics", f"not made yet: {missing}; the first process makes them"))
    return found


def _asked(client: AdminClient, resources: list[Any]) -> list[Any]:
    futures = client.describe_configs(resources, request_timeout=_WITHIN_S)
    return [futures[resource] for resource in resources]


def _configs(entries: Any) -> Configs:
    return {name: entry.value for name, entry in entries.items() if entry.value is not None}


def broker(config: Configs, brokers: int, message_bytes: int, *, are_topics_made: bool) -> Iterator[Finding]:
    """What the brokers give a topic that is made without saying so."""
    copies = int(config.get("default.replication.factor", 1))
    least = int(config.get("min.insync.replicas", 1))
    fact = f"{_brokers(brokers)}; a topic has {_copies(copies)}, min.insync.replicas {least} by default"
    if brokers >= _COPIES:
        yield ok(AREA, "brokers", fact)
    else:
        advice = f"SENT is worth {'one disk' if brokers == 1 else 'two'}: three brokers, three copies, two in sync"
        yield warning(AREA, "brokers", fact, advice)
    if not are_topics_made:
        yield fits("message.max.bytes", config.get("message.max.bytes"), message_bytes)
    kept = config.get("offsets.retention.minutes")
    if kept is not None and int(kept) * 60_000 < _KEPT_DAYS * _DAYS_MS:
        advice = "after a longer rest a sink reads everything again"
        yield warning(AREA, "offsets.retention.minutes", f"{int(kept) / 1_440:g} days", advice)


def topic(kafka: KafkaSettings, name: str, there: Any, config: Configs, message_bytes: int) -> Iterator[Finding]:
    """One of ours. ``there``: librdkafka's view of it."""
    partitions = there.partitions.values()
    copies = min((len(one.replicas) for one in partitions), default=0)
    least = int(config.get("min.insync.replicas", 1))
    kept_ms = int(config.get("retention.ms", -1))
    kept = "for ever" if kept_ms < 0 else f"{kept_ms / _DAYS_MS:g} days"
    fact = f"{len(partitions)} partitions, {_copies(copies)}, {least} in sync at least, kept {kept}"
    behind = [one.id for one in partitions if len(one.isrs) < len(one.replicas)]
    silent = [one.id for one in partitions if one.leader < 0 or len(one.isrs) < least]
    if silent:
        yield failure(AREA, name, f"{fact}; partitions {_few(silent)} take nothing", "see which brokers are gone")
    elif behind:
        yield warning(AREA, name, f"{fact}; copies of {_few(behind)} are behind", "see which brokers are gone")
    elif least >= copies > 1:
        advice = f"one broker that is away stops it: set min.insync.replicas to {copies - 1}"
        yield warning(AREA, name, fact, advice)
    elif 0 <= kept_ms < _KEPT_DAYS * _DAYS_MS:
        yield warning(AREA, name, fact, "what no sink has read by then is lost: keep it 7 days")
    elif name == kafka.uplink_topic and len(partitions) < kafka.partitions:
        advice = f"kafka_partitions is {kafka.partitions}; more partitions later break the order of a device's messages"
        yield warning(AREA, name, fact, advice + " once")
    else:
        yield ok(AREA, name, fact)
    if name != kafka.receipts_topic:
        yield fits(f"{name} max.message.bytes", config.get("max.message.bytes"), message_bytes)


def fits(name: str, most: str | None, wanted: int) -> Finding:
    """Whether the largest message that a device may send is taken."""
    if most is None:
        return unknown(AREA, name, "the brokers do not tell it")
    fact = f"{int(most):,} bytes; the largest message of a device has {wanted:,} (limits.max_body_bytes)"
    if int(most) >= wanted:
        return ok(AREA, name, fact)
    return failure(AREA, name, fact, "large messages of devices would be refused: raise it")


def _brokers(count: int) -> str:
    return "1 broker" if count == 1 else f"{count} brokers"


def _copies(count: int) -> str:
    return "1 copy" if count == 1 else f"{count} copies"


def _few(numbers: list[int]) -> str:
    return ", ".join(map(str, sorted(numbers)[:5])) + (" …" if len(numbers) > 5 else "")
