"""A Kafka that all tests share, with topics of each test's own; and what tests of it say often."""

import sys
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from longwire.adapters.kafka import KafkaProducer, KafkaSettings
from longwire.testing.engines import Kafka


@pytest.fixture
def settings(kafka_engine: Kafka) -> KafkaSettings:
    return KafkaSettings(
        kafka_engine.servers,
        topic_prefix=uuid.uuid4().hex,
        partitions=3,
        replication=1,
        delivery_timeout_s=5,
        session_timeout_s=2,
    )


@pytest.fixture
async def producer(settings: KafkaSettings) -> AsyncIterator[KafkaProducer]:
    producer = KafkaProducer(settings)
    await producer.start()
    yield producer
    await producer.stop()


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Nothing of Kafka's is left behind."""
    yield
    assert [one.name for one in threading.enumerate() if one.name.startswith("lw-kafka")] == []


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker that tests may stop and freeze; they leave it running."""
    with Kafka(tmp_path_factory.mktemp("own_kafka")) as kafka:
        yield kafka
