"""A record of the uplink log as a message of Kafka, and back (docs/uplink-log.md).

The value is what the device sent, byte for byte; what else is known of it stands in headers, as text. So whoever
consumes the topic needs no schema of ours, and Kafka's own tools show what is in it.
"""

from confluent_kafka import Message

from longwire.ids import MESSAGE_ID_BYTES, is_device_id
from longwire.limits import MAX_KIND_CHARACTERS
from longwire.model import UplinkRecord
from longwire.wire.packets import TRACE_BYTES
from longwire.wire.traces import trace_of, traceparent_of

MESSAGE_ID = "message_id"
KIND = "kind"
DEVICE_NO = "device_no"
SENT_AT_MS = "sent_at_ms"
TRACEPARENT = "traceparent"
REPLAY = "replay"
"""Of a dead letter that is replayed: its number."""
ERROR = "error"
CONSUMER = "consumer"

Headers = list[tuple[str, str | bytes | None]]

_MAX_INTEGER = 1 << 63


def headers_of(record: UplinkRecord) -> Headers:
    headers: Headers = [
        (MESSAGE_ID, record.message_id.hex().encode()),
        (KIND, record.kind.encode()),
        (DEVICE_NO, b"%d" % record.device_no),
        (SENT_AT_MS, b"%d" % record.sent_at_ms),
    ]
    if len(record.trace) == TRACE_BYTES:
        headers.append((TRACEPARENT, traceparent_of(record.trace).encode()))
    return headers


def record_of(message: Message, number: int) -> tuple[UplinkRecord, int]:
    """The record, and the number of the dead letter of which it is the replay, or 0.

    Raises ValueError for what is none: anybody may write to a topic.
    """
    pairs = message.headers() or ()
    assert not isinstance(pairs, dict)
    headers = {name: value for name, value in pairs if isinstance(value, bytes)}
    try:
        message_id = bytes.fromhex(headers[MESSAGE_ID].decode())
        kind = headers[KIND].decode()
        device_no, sent_at_ms, letter_no = (int(headers.get(name, b"0")) for name in (DEVICE_NO, SENT_AT_MS, REPLAY))
    except KeyError as error:
        raise ValueError(f"no header {error}") from None
    device_id, payload = (message.key() or b"").decode(), message.value()
    if payload is None or not is_device_id(device_id) or len(message_id) != MESSAGE_ID_BYTES:
        raise ValueError("no value, or no possible device id (key) or message_id")
    if not 0 < len(kind) <= MAX_KIND_CHARACTERS or "\0" in kind:
        raise ValueError("no possible kind")
    if not (0 < device_no < _MAX_INTEGER and 0 <= sent_at_ms < _MAX_INTEGER):
        raise ValueError("no possible device_no or sent_at_ms")
    trace = trace_of(headers.get(TRACEPARENT, b"").decode("ascii"))
    return UplinkRecord(device_no, device_id, message_id, kind, payload, sent_at_ms, trace, number), letter_no
