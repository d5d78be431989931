"""The topics: made where they are missing, never changed."""

from collections.abc import Iterable
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from longwire.adapters.kafka.settings import KafkaRefused, KafkaSettings

_DAY_MS = 86_400_000
_ANSWER_WITHIN_S = 5.0
_SAFE_COPIES = 3


def make_topics(settings: KafkaSettings) -> None:
    """Makes those of our topics that are missing; blocks for some seconds at the most.

    Raises KafkaRefused where the brokers will not have one, and KafkaException where they do not answer.
    """
    kept_ms = {
        settings.uplink_topic: 7 * _DAY_MS,
        settings.dead_topic: 30 * _DAY_MS,
        settings.receipts_topic: 7 * _DAY_MS,
    }
    admin = AdminClient(settings.client({}))
    there = admin.list_topics(timeout=_ANSWER_WITHIN_S).topics
    missing = [_topic(settings, name, kept) for name, kept in kept_ms.items() if name not in there]
    if missing:
        _wait(admin.create_topics(missing, operation_timeout=_ANSWER_WITHIN_S).items(), settings)


def _topic(settings: KafkaSettings, name: str, kept_ms: int) -> NewTopic:
    config = {"retention.ms": str(kept_ms), "cleanup.policy": "delete"}
    if settings.replication >= _SAFE_COPIES:
        config["min.insync.replicas"] = str(settings.replication - 1)
    return NewTopic(name, num_partitions=settings.partitions, replication_factor=settings.replication, config=config)


def _wait(made: Iterable[tuple[str, "Future[None]"]], settings: KafkaSettings) -> None:
    for name, future in made:
        try:
            future.result()
        except KafkaException as error:
            fault: KafkaError = error.args[0]
            if fault.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue  # another process was quicker
            if fault.retriable() or fault.code() in _NO_ANSWER:
                raise
            raise KafkaRefused(
                f"Kafka at {settings.servers} does not make the topic {name} with {settings.partitions} partitions "
                f"(kafka_partitions) in {settings.replication} copies (kafka_replication): {fault.str()}; "
                "set what the brokers can do, or make the topic by hand"
            ) from error


_NO_ANSWER = frozenset({KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError.REQUEST_TIMED_OUT})  # noqa: SLF001 - their names
