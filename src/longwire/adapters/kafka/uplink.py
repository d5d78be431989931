"""The uplink log's near end on Kafka: what devices send, durable when its delivery report is here."""

from functools import partial

from longwire.adapters.kafka.producer import KafkaProducer
from longwire.adapters.kafka.records import headers_of
from longwire.model import UplinkRecord
from longwire.ports.uplink import AppendCallback
from longwire.reasons import Status

_ENVELOPE_BYTES = 512
"""What a record weighs in librdkafka's queue beside its payload."""


class KafkaUplink:
    """ports.uplink.UplinkWriter. A repeat is durable once more: whoever reads the log drops it (stored.py)."""

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer
        self._topic = producer.settings.uplink_topic
        self.queued_bytes = 0

    def append(self, record: UplinkRecord, done: AppendCallback) -> None:
        self.queued_bytes += len(record.payload) + _ENVELOPE_BYTES
        self._producer.send(
            self._topic,
            record.device_id.encode(),
            record.payload,
            headers_of(record),
            partial(self._told, record, done),
        )

    def _told(self, record: UplinkRecord, done: AppendCallback, is_durable: bool) -> None:
        self.queued_bytes -= len(record.payload) + _ENVELOPE_BYTES
        done(record, Status.OK if is_durable else Status.NOT_DURABLE)
