"""The native protocol: 12-byte header, msgpack body (PROTOCOL §1).

    0     1              2        3       4               8               12
    ┌─────┬──────────────┬────────┬───────┬───────────────┬───────────────┬──────┐
    │ A7  │version, flags│command │scheme │ body length   │ correlation   │ body │
    └─────┴──────────────┴────────┴───────┴───────────────┴───────────────┴──────┘

``Decoder`` takes bytes however the transport split them and gives the frames that are whole; the header is
judged as soon as it is, before a byte of body is kept. After the first fault it gives nothing more.
"""

import struct
from collections.abc import Callable

import msgspec

from longwire.errors import LocalProtocolError, RemoteProtocolError
from longwire.limits import MAX_NESTING
from longwire.reasons import CloseCode
from longwire.wire.packets import (
    FLAG_RECEIPT,
    FLAG_TRACE,
    FROM_DEVICE,
    FROM_NODE,
    TRACE_BYTES,
    Ack,
    AnyPacket,
    Command,
    Packet,
    Ping,
    Pong,
    Received,
)

MAGIC = 0xA7
VERSION = 1
HEADER_BYTES = 12

_pack_header = struct.Struct(">HBBII").pack
# For reading, the first four fields are one word: looked up whole, it is right or wrong in one step.
_unpack_header = struct.Struct(">III").unpack_from
_START = MAGIC << 8 | VERSION << 4
_FLAGS = (0, FLAG_RECEIPT, FLAG_TRACE, FLAG_RECEIPT | FLAG_TRACE)

_encode_body = msgspec.msgpack.Encoder().encode
_split_body = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
# By class: a member of Command hashes in Python and isinstance asks msgspec's metaclass, 0.1 µs a frame.
_NO_BODY: frozenset[type[AnyPacket]] = frozenset((Ping, Pong))
_ODD_BODY: frozenset[type[AnyPacket]] = frozenset((Ack, Ping, Pong))

BodyDecoder = Callable[[bytes], AnyPacket]
Bodies = dict[int, tuple[BodyDecoder, int, int]]
"""By the first word of a frame that is as it must be: how its body is decoded, its command and its flags."""


class Decoder:
    """Turns the bytes of one peer into frames.

    ``max_body_bytes`` bounds what is kept of an unfinished frame. Feeding costs time linear in the bytes fed,
    however they were split.
    """

    __slots__ = ("_bodies", "_max_body_bytes", "_needed", "_pending", "fault")

    def __init__(self, bodies: Bodies, max_body_bytes: int) -> None:
        self._bodies = bodies
        self._max_body_bytes = max_body_bytes
        self._pending: bytearray | None = None
        self._needed = 0
        self.fault: RemoteProtocolError | None = None
        """What the peer did wrong, once it did; the connection is to be closed with its code."""

    @property
    def pending_bytes(self) -> int:
        """Bytes kept of a frame that is not whole yet."""
        return 0 if self._pending is None else len(self._pending)

    def feed(self, data: bytes) -> list[Received]:
        """Takes the next bytes of the stream and gives the frames that they complete, in order.

        On a fault of the peer gives the frames before it and sets ``fault``; never raises for what a peer sent.
        """
        if self._pending is not None:
            self._pending += data
            if len(self._pending) < self._needed:
                return []
            data = bytes(self._pending)
            self._pending = None
        elif self.fault is not None:
            return []
        frames: list[Received] = []
        offset = 0
        size = len(data)
        while size - offset >= HEADER_BYTES:
            word, length, correlation = _unpack_header(data, offset)
            entry = self._bodies.get(word)
            if entry is None:
                self.fault = _header_fault(word)
                return frames
            if length > self._max_body_bytes:
                self.fault = RemoteProtocolError(
                    CloseCode.TOO_LARGE, f"body of {length} bytes exceeds {self._max_body_bytes}"
                )
                return frames
            body_at = offset + HEADER_BYTES
            end = body_at + length
            if end > size:
                break
            decode, command, flags = entry
            trace = b""
            if flags & FLAG_TRACE:
                if length < TRACE_BYTES:
                    self.fault = RemoteProtocolError(
                        CloseCode.PROTOCOL_ERROR,
                        f"trace context of {length} bytes is less than {TRACE_BYTES}",
                    )
                    return frames
                trace = data[body_at : body_at + TRACE_BYTES]
                body_at += TRACE_BYTES
            try:
                packet = decode(data[body_at:end])
            except (ValueError, TypeError, RecursionError) as error:
                self.fault = RemoteProtocolError(CloseCode.PROTOCOL_ERROR, _body_fault(command, error))
                return frames
            frames.append(Received(command, flags, correlation, packet, trace))
            offset = end
        else:
            length = 0
        if offset < size:
            self._pending = bytearray(data[offset:])
            self._needed = HEADER_BYTES + length
        return frames


def _header_fault(word: int) -> RemoteProtocolError:
    """The first thing wrong with a header's first word, in the order that PROTOCOL §1 gives."""
    start, command, scheme = word >> 16, word >> 8 & 0xFF, word & 0xFF
    if start >> 8 != MAGIC:
        return RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"magic 0x{start >> 8:02x} is not 0x{MAGIC:02x}")
    if start >> 4 & 0x0F != VERSION:
        return RemoteProtocolError(CloseCode.UNSUPPORTED, f"version {start >> 4 & 0x0F} is not {VERSION}")
    if scheme != 0:
        return RemoteProtocolError(CloseCode.UNSUPPORTED, f"security scheme {scheme} is reserved")
    if start & 1:
        return RemoteProtocolError(CloseCode.UNSUPPORTED, "flag 1 (compressed body) is reserved")
    if start & 8:
        return RemoteProtocolError(CloseCode.UNSUPPORTED, "flag 8 is reserved")
    return RemoteProtocolError(CloseCode.PROTOCOL_ERROR, f"command 0x{command:02x} is unknown or not from this side")


def _body_fault(command: int, error: Exception) -> str:
    # msgspec names the field and the types, never the value: nothing of the peer's bytes gets into the text.
    if isinstance(error, UnicodeDecodeError):
        detail = "bad UTF-8"
    elif isinstance(error, RecursionError):
        detail = f"nested deeper than {MAX_NESTING}"
    else:
        detail = str(error)
    return f"body of {Command(command).name}: {detail}"


def _body_decoder(kind: type[AnyPacket]) -> BodyDecoder:
    if kind is Ack:
        handles = msgspec.msgpack.Decoder(list[int]).decode
        return lambda body: Ack(handles(body)) if body else Ack()
    if not issubclass(kind, Packet):
        raise TypeError(kind)
    if kind in _NO_BODY:
        packet = kind()
        return lambda body: packet
    decode = msgspec.msgpack.Decoder(kind).decode
    fields = len(kind.__struct_fields__)
    known = 0x90 | fields

    def decode_body(body: bytes) -> Packet:
        packet = decode(body)
        # Only a field that is ignored can nest; the first byte of an array says how many there are.
        if body[0] > known:
            for ignored in _split_body(body)[fields:]:
                _check_ignored(bytes(ignored))
        return packet

    return decode_body


def _check_ignored(value: bytes) -> None:
    """Raises ValueError where a well-formed msgpack value nests too deep for a field, or has bad UTF-8.

    It is walked, not decoded: what is ignored may be a map whose keys Python cannot hash, or a time that Python
    cannot tell.
    """
    at = 0
    left = [1]  # values still to come: in all, then in each array or map that is open
    while left:
        if left[-1] == 0:
            left.pop()
            continue
        left[-1] -= 1
        lead = value[at]
        width, fixed, per_item = _LEADS[lead]
        at += 1
        size = fixed
        if width:
            size += int.from_bytes(value[at : at + width], "big")
            at += width
        if per_item:
            if len(left) == MAX_NESTING:  # the body itself is level 1
                raise ValueError(f"nested deeper than {MAX_NESTING}")
            left.append(size * per_item)
        else:
            if 0xA0 <= lead <= 0xBF or 0xD9 <= lead <= 0xDB:
                value[at : at + size].decode()
            at += size


def _lead(lead: int) -> tuple[int, int, int]:
    """What follows a first byte: a size of so many bytes, so much to add to it, values per item if it holds any.

    https://github.com/msgpack/msgpack/blob/master/spec.md
    """
    if 0x80 <= lead <= 0x8F:
        return 0, lead & 0x0F, 2
    if 0x90 <= lead <= 0x9F:
        return 0, lead & 0x0F, 1
    if 0xA0 <= lead <= 0xBF:
        return 0, lead & 0x1F, 0
    return _LONG_LEADS.get(lead, (0, 0, 0))


_LONG_LEADS = {
    **{0xC4 + i: (1 << i, 0, 0) for i in range(3)},  # bin
    **{0xC7 + i: (1 << i, 1, 0) for i in range(3)},  # ext: a type before the data
    **{0xCA + i: (0, 4 << i, 0) for i in range(2)},  # float
    **{0xCC + i: (0, 1 << i, 0) for i in range(4)},  # unsigned
    **{0xD0 + i: (0, 1 << i, 0) for i in range(4)},  # signed
    **{0xD4 + i: (0, 1 + (1 << i), 0) for i in range(5)},  # ext of a fixed size
    **{0xD9 + i: (1 << i, 0, 0) for i in range(3)},  # str
    **{0xDC + i: (2 << i, 0, 1) for i in range(2)},  # array
    **{0xDE + i: (2 << i, 0, 2) for i in range(2)},  # map
}
_LEADS = tuple(map(_lead, range(256)))


def _table(kinds: tuple[type[AnyPacket], ...]) -> Bodies:
    table: Bodies = {}
    for kind in kinds:
        decode = _body_decoder(kind)
        for flags in _FLAGS:
            table[(_START | flags) << 16 | kind.command << 8] = (decode, int(kind.command), flags)
    return table


_DEVICE_BODIES = _table(FROM_DEVICE)
_NODE_BODIES = _table(FROM_NODE)
_ALL_BODIES = _DEVICE_BODIES | _NODE_BODIES


def device_decoder(max_body_bytes: int) -> Decoder:
    """A decoder of what devices send: the node's end."""
    return Decoder(_DEVICE_BODIES, max_body_bytes)


def node_decoder(max_body_bytes: int) -> Decoder:
    """A decoder of what nodes send: the device's end."""
    return Decoder(_NODE_BODIES, max_body_bytes)


def any_decoder(max_body_bytes: int) -> Decoder:
    """A decoder of both directions, for captures and tests."""
    return Decoder(_ALL_BODIES, max_body_bytes)


def encode(packet: AnyPacket, correlation: int = 0, flags: int = 0, trace: bytes = b"") -> bytes:
    """One frame. ``flags`` is FLAG_RECEIPT or 0; the trace flag follows from ``trace`` (24 bytes or none).

    Raises LocalProtocolError for other flags, a trace context of another size, a correlation id over 32 bits,
    ints over 64 bits and text that UTF-8 cannot say.
    """
    if flags & ~FLAG_RECEIPT and (flags & ~(FLAG_RECEIPT | FLAG_TRACE) or not trace):
        raise LocalProtocolError(f"flags {flags} cannot be set by a sender")
    try:
        body = _body_of(packet) if type(packet) in _ODD_BODY else _encode_body(packet)
        if trace:
            if len(trace) != TRACE_BYTES:
                raise LocalProtocolError(f"trace context of {len(trace)} bytes is not {TRACE_BYTES}")
            body = trace + body
            flags |= FLAG_TRACE
        return _pack_header(_START | flags, packet.command, 0, len(body), correlation) + body
    except (OverflowError, UnicodeEncodeError) as error:
        raise LocalProtocolError(f"{packet.command.name}: {error}") from None
    except struct.error:
        raise LocalProtocolError(f"correlation id {correlation} is not 32 bits") from None


def _body_of(packet: AnyPacket) -> bytes:
    """The body of a packet that is no array of its fields."""
    return _encode_body(packet.handles) if isinstance(packet, Ack) and packet.handles else b""


PONG_PACKET = Pong()
