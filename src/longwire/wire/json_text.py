"""The sub-protocol ``longwire.v1.json``: one JSON object a text message (PROTOCOL §6).

    {"cmd":"SEND","id":2,"receipt":true,"message_id":"0193…","to":"device:d-2","kind":"chat","payload":{"x":1}}

The packets are those of the native protocol, field by field; only three things look different: a message id is
a UUID string, a trace context a W3C traceparent, and a payload is either a JSON value (``payload``) or bytes in
base64 (``payload_b64``). A payload's value is never taken apart: the whitespace between its tokens goes, all
else (``1.0``, ``1e400``, long integers, escapes, names that come twice) stays as its sender wrote it.

Strict JSON is RFC 8259 in UTF-8, with no NaN or Infinity and no escape of half a surrogate pair, which names no
character. Where a field of the message itself comes twice, the last one holds.
"""

import re
from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType
from msgspec.structs import astuple, fields

from longwire.errors import LocalProtocolError, RemoteProtocolError
from longwire.ids import MESSAGE_ID_BYTES, message_id_bytes, message_id_text
from longwire.limits import MAX_NESTING
from longwire.reasons import CloseCode
from longwire.wire.packets import (
    FLAG_RECEIPT,
    FLAG_TRACE,
    FROM_DEVICE,
    FROM_NODE,
    AnyPacket,
    Received,
)
from longwire.wire.traces import trace_of, traceparent_of

Side = Literal["device", "node"]

_encode_message = msgspec.json.Encoder().encode
_compact = msgspec.json.format

# A device's 10**30 must not reach code that writes msgpack or SQL: what is beyond 64 bits is no int here.
_Int = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
_Correlation = Annotated[int, Meta(ge=0, le=0xFFFF_FFFF)]
_JSON_TYPES: dict[object, object] = {int: _Int, list[int]: list[_Int], bytes: str}

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class _Incoming(NamedTuple):
    """How a decoded message becomes a packet."""

    command: int
    packet: type[AnyPacket]
    has_message_id: bool
    payload_at: int


class _Outgoing(NamedTuple):
    """How a packet becomes a message; UNSET fields are left out of it."""

    message: type[msgspec.Struct]
    has_message_id: bool
    payload_at: int


def decode(text: bytes, accepts: Side, max_body_bytes: int) -> Received:
    """The packet that one text message of the ``accepts`` side says.

    A ``message_id`` that is no UUID becomes ``b""``: the right type with an impossible value, which is answered
    and does not close. A ``trace`` that is no traceparent is dropped, as W3C Trace Context §4 has it: a fault in
    someone's tracing breaks no connection. Whether the trace was sampled is not kept.

    Raises RemoteProtocolError, and nothing else for what a peer sent: 4010 for a text longer than
    ``max_body_bytes``; 4009 for one that is not strict JSON, not of a command of that side, has a wrong type, an
    ``id`` outside 32 bits or another int outside 64, nests deeper than 32 (the message is level 1; a payload
    counts by itself), or gives a payload twice or not at all.
    """
    if len(text) > max_body_bytes:
        raise RemoteProtocolError(CloseCode.TOO_LARGE, f"message of {len(text)} bytes exceeds {max_body_bytes}")
    try:
        if not text.isascii():
            text.decode()  # the parser looks inside of known strings only
        message = _DECODERS[accepts](text)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, _fault(error)) from None
    command, packet, has_message_id, payload_at = _INCOMING[type(message)]
    if not _nests_at_most(text, MAX_NESTING) and not _only_payload_is_deeper(text, payload_at >= 0):
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"message: nested deeper than {MAX_NESTING}")
    correlation, receipt, traceparent, *values = astuple(message)
    if payload_at >= 0:
        values[payload_at] = _payload(values[payload_at], values.pop())
    if has_message_id:
        try:
            values[0] = message_id_bytes(values[0])
        except ValueError:
            values[0] = b""
    flags = FLAG_RECEIPT if receipt is True else 0
    trace = b""
    if traceparent is not UNSET:
        trace = trace_of(traceparent)
        if trace:
            flags |= FLAG_TRACE
    return Received(command, flags, correlation, packet(*values), trace)


def encode(packet: AnyPacket, correlation: int = 0, flags: int = 0, trace: bytes = b"") -> bytes:
    """One message, as compact UTF-8 JSON.

    ``flags`` is FLAG_RECEIPT or 0; the trace follows from ``trace`` (24 bytes or none) and is told as
    sampled where the lowest bit of its span id is set (longwire/traces.py).
    The payload is embedded where it is strict JSON nested at most 32 deep, less the whitespace between its
    tokens; else it goes as base64.

    Raises LocalProtocolError for other flags, a trace context or message id of another size, a correlation id
    over 32 bits, and text that UTF-8 cannot say.
    """
    message, has_message_id, payload_at = _OUTGOING[type(packet)]
    if flags & ~FLAG_RECEIPT and (flags & ~(FLAG_RECEIPT | FLAG_TRACE) or not trace):
        raise LocalProtocolError(f"flags {flags} cannot be said in JSON")
    if not 0 <= correlation <= 0xFFFF_FFFF:
        raise LocalProtocolError(f"correlation id {correlation} is not 32 bits")
    values = list(astuple(packet))
    if has_message_id:
        if len(values[0]) != MESSAGE_ID_BYTES:
            raise LocalProtocolError(f"message id of {len(values[0])} bytes is not {MESSAGE_ID_BYTES}")
        values[0] = message_id_text(values[0])
    if payload_at >= 0:
        payload = values[payload_at]
        values[payload_at] = value = _json_value(payload)
        values.append(payload if value is UNSET else UNSET)
    receipt = True if flags & FLAG_RECEIPT else UNSET
    traceparent = traceparent_of(trace) if trace else UNSET
    try:
        return _encode_message(message(correlation, receipt, traceparent, *values))
    except UnicodeEncodeError as error:
        raise LocalProtocolError(f"{packet.command.name}: {error.reason}") from None


def _fault(error: Exception) -> str:
    # msgspec names fields, types and places; a value it quotes for an unknown command only.
    if isinstance(error, UnicodeDecodeError):
        return "message: bad UTF-8"
    if isinstance(error, RecursionError):
        return f"message: nested deeper than {MAX_NESTING}"
    if str(error).startswith("Invalid value"):
        return "message: cmd is unknown or not from this side"
    return f"message: {error}"


def _payload(value: Raw | UnsetType, octets: bytes | UnsetType) -> bytes:
    """What the two ways to give a payload come to: a value's compact text, or the bytes."""
    if value is UNSET:
        if octets is UNSET:
            raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "message: neither payload nor payload_b64")
        return octets
    if octets is not UNSET:
        raise RemoteProtocolError(CloseCode.PROTOCOL_ERROR, "message: both payload and payload_b64")
    return _compact(bytes(value), indent=-1)


def _json_value(payload: bytes) -> Raw | UnsetType:
    """The payload as JSON to embed; UNSET where it is not strict JSON nested at most 32 deep."""
    try:
        if not payload.isascii():
            payload.decode()
        text = _compact(payload, indent=-1)
    except (ValueError, RecursionError):
        return UNSET
    return Raw(text) if _nests_at_most(text, MAX_NESTING) else UNSET


def _nests_at_most(text: bytes, levels: int) -> bool:
    """Whether the JSON ``text``, known to be well formed, nests at most ``levels`` deep."""
    if text.count(b"[") + text.count(b"{") <= levels:
        return True
    shape = _STRING.sub(b"", text).translate(_AS_SQUARE, _NOT_BRACKETS)
    for _ in range(levels):
        # Each pass takes away the innermost pairs, all at once.
        shape = shape.replace(b"[]", b"")
        if not shape:
            return True
    return False


def _only_payload_is_deeper(text: bytes, has_payload: bool) -> bool:
    """Whether a message over 32 levels is so by its payload, which has 32 of its own below the first."""
    if not has_payload or not _nests_at_most(text, MAX_NESTING + 1):
        return False
    parts = _split(text)
    return all(_nests_at_most(bytes(part), MAX_NESTING - 1) for name, part in parts.items() if name != "payload")


def _incoming(kind: type[AnyPacket]) -> type[msgspec.Struct]:
    """The message that says ``kind``, for decoding: ``id``, ``receipt``, ``trace``, then the packet's fields."""
    described: list[tuple[str, object, object] | tuple[str, object]] = [
        ("id", _Correlation, 0),
        ("receipt", bool, False),
        ("trace", str | UnsetType, UNSET),
    ]
    for field in fields(kind):
        of_type = _JSON_TYPES.get(field.type, field.type)
        if field.name == "payload":
            described.append((field.name, Raw | UnsetType, UNSET))
        elif field.required:
            described.append((field.name, of_type))
        elif field.default is msgspec.NODEFAULT:
            described.append((field.name, of_type, msgspec.field(default_factory=field.default_factory)))
        else:
            described.append((field.name, of_type, field.default))
    if "payload" in kind.__struct_fields__:
        described.append(("payload_b64", bytes | UnsetType, UNSET))
    name = kind.command.name
    return msgspec.defstruct(name, described, tag_field="cmd", tag=name, kw_only=True, gc=False)


def _outgoing(kind: type[AnyPacket]) -> type[msgspec.Struct]:
    """The same for encoding: every field by position, of any type."""
    names = ["id", "receipt", "trace", *kind.__struct_fields__]
    if "payload" in names:
        names.append("payload_b64")
    name = kind.command.name
    return msgspec.defstruct(name, [(each, object) for each in names], tag_field="cmd", tag=name, gc=False)


def _payload_at(kind: type[AnyPacket]) -> int:
    names = kind.__struct_fields__
    return names.index("payload") if "payload" in names else -1


_KINDS = dict.fromkeys(FROM_DEVICE + FROM_NODE)
_MESSAGES = {kind: _incoming(kind) for kind in _KINDS}
_INCOMING = {
    message: _Incoming(int(kind.command), kind, "message_id" in kind.__struct_fields__, _payload_at(kind))
    for kind, message in _MESSAGES.items()
}
_OUTGOING = {
    kind: _Outgoing(_outgoing(kind), "message_id" in kind.__struct_fields__, _payload_at(kind)) for kind in _KINDS
}


def _decoder(kinds: tuple[type[AnyPacket], ...]) -> Callable[[bytes], msgspec.Struct]:
    return msgspec.json.Decoder(reduce(or_, [_MESSAGES[kind] for kind in kinds])).decode


_DECODERS: dict[Side, Callable[[bytes], msgspec.Struct]] = {
    "device": _decoder(FROM_DEVICE),
    "node": _decoder(FROM_NODE),
}
_split = msgspec.json.Decoder(dict[str, Raw]).decode
