"""Where Kafka is and how its topics are made; what goes to librdkafka is put together here and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from longwire.errors import LongwireError

Config = dict[str, Any]


class KafkaRefused(LongwireError):
    """Kafka, or its client, does not take what the settings say."""


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Validated when made. Raises ValueError, naming the value."""

    servers: str
    """``host:port``, separated by commas: some of the brokers."""
    topic_prefix: str = "longwire"
    """Of topics and of consumer groups."""
    partitions: int = 12
    """Of a topic that is made; one that is there keeps what it has."""
    replication: int = -1
    """Copies of a topic that is made; -1: the brokers' ``default.replication.factor``."""
    delivery_timeout_s: float = 10.0
    """How long a message may wait for its delivery report; then it is not durable."""
    max_queued_bytes: int = 64 << 20
    """Payloads that wait for their delivery reports; what comes on top of them is refused at once."""
    session_timeout_s: float = 10.0
    """Silence after which a member of a consumer group counts as dead and others take its partitions."""
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Further settings of librdkafka: TLS, SASL. What the promises of the log hang on cannot be set by them."""

    def __post_init__(self) -> None:
        if not self.servers:
            raise ValueError("kafka_servers is empty")
        if not self.topic_prefix:
            raise ValueError("the prefix of Kafka's topics is empty")
        if self.partitions < 1:
            raise ValueError(f"kafka_partitions is {self.partitions}, not above 0")
        if self.replication < 1 and self.replication != -1:
            raise ValueError(f"kafka_replication is {self.replication}, neither above 0 nor -1")
        for name in ("delivery_timeout_s", "max_queued_bytes", "session_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"Kafka's {name} is {getattr(self, name)}, not above 0")

    @property
    def uplink_topic(self) -> str:
        return f"{self.topic_prefix}.uplink"

    @property
    def dead_topic(self) -> str:
        return f"{self.topic_prefix}.uplink.dead"

    @property
    def receipts_topic(self) -> str:
        return f"{self.topic_prefix}.receipts"

    def client(self, fixed: Config) -> Config:
        """The settings of a client of librdkafka; ``fixed`` are those that nobody may change."""
        config: Config = {
            "client.id": "longwire",
            # Each broken connection is an error to librdkafka; ours are told once, by ``error_cb``.
            "log_level": 2,
            "reconnect.backoff.max.ms": 1_000,
            "socket.timeout.ms": 10_000,
            "topic.metadata.refresh.interval.ms": 10_000,
        }
        config.update(self.options)
        config.update(fixed)
        config["bootstrap.servers"] = self.servers
        return config

    def producer(self) -> Config:
        return self.client(
            {
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "delivery.timeout.ms": round(self.delivery_timeout_s * 1000),
                "queue.buffering.max.kbytes": max(1, self.max_queued_bytes >> 10),
                # As Java's clients do it: whoever produces, a device's messages meet in one partition.
                "partitioner": "murmur2_random",
            }
        )

    def consumer(self, group: str) -> Config:
        return self.client(
            {
                "group.id": f"{self.topic_prefix}.{group}",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                # The classic protocol: with the newer one the session's length is the broker's alone, 45 s by default.
                "group.protocol": "classic",
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": round(self.session_timeout_s * 1000),
                # A member hears of the others' coming and going with its heartbeats.
                "heartbeat.interval.ms": min(1_000, round(self.session_timeout_s * 1000 / 4)),
                "queued.max.messages.kbytes": 16_384,
                "fetch.wait.max.ms": 100,
            }
        )
