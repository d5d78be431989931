"""The logs of a cluster on Kafka: what devices send to the application, dead letters, and receipts of pushes."""

from longwire.adapters.kafka.producer import KafkaProducer
from longwire.adapters.kafka.receipts import KafkaReceipts, ReceiptsConsumer
from longwire.adapters.kafka.settings import KafkaRefused, KafkaSettings
from longwire.adapters.kafka.stored import KafkaDeadLetters, StoredUplink
from longwire.adapters.kafka.uplink import KafkaUplink

__all__ = [
    "KafkaDeadLetters",
    "KafkaProducer",
    "KafkaReceipts",
    "KafkaRefused",
    "KafkaSettings",
    "KafkaUplink",
    "ReceiptsConsumer",
    "StoredUplink",
]
