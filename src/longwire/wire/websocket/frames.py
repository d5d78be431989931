"""WebSocket frames, both ends (RFC 6455 §5 to §8), as a sans-I/O codec.

    bytes ── Decoder.feed ──► [(opcode, payload), …]        encode, encode_close ──► bytes

``feed`` is the hot path of every browser: a plain call that turns what the transport brought into whole
messages and control frames. A violation by the peer is data (``fault``), never an exception. Between messages
a decoder holds nothing but its rules; what a message under way needs is made with it and goes with it.

This file never answers a PING or a CLOSE and closes nothing: the connection does. No extension is negotiated,
so every reserved bit is a violation. 1003 (a type of data that the application cannot accept) is the
application's to say.
"""

from codecs import utf_8_decode
from enum import IntEnum
from struct import Struct

from longwire.errors import LocalProtocolError, RemoteProtocolError

try:
    from websockets.speedups import apply_mask
except ImportError:  # no C extension on this platform; the same function in Python
    from websockets.utils import apply_mask

MAX_CONTROL_BYTES = 125
MAX_REASON_BYTES = MAX_CONTROL_BYTES - 2

CLOSE_NORMAL = 1000
CLOSE_PROTOCOL_ERROR = 1002
CLOSE_UNACCEPTABLE_DATA = 1003
CLOSE_NO_STATUS = 1005
CLOSE_INVALID_TEXT = 1007
CLOSE_TOO_LARGE = 1009


class Opcode(IntEnum):
    """What a frame is (RFC 6455 §5.2). From 8 on: control frames."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


# Plain ints: an attribute of an enum costs a look-up for every frame.
_CONTINUATION, _TEXT, _BINARY, _CLOSE = 0, 1, 2, 8
_FINAL = 0x80
_RESERVED_BITS = 0x70
_MASKED = 0x80

# Every first byte of a frame that is legal by itself: no reserved bit, a known opcode, control frames final.
_FIRST_BYTES = frozenset([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A])
_OPCODES = frozenset(int(opcode) for opcode in Opcode)

_HEADER_16 = Struct("!BBH")
_HEADER_64 = Struct("!BBQ")

Event = tuple[int, bytes]


class _Message:
    """A data message under way: one that spans frames or whose frame spans feeds."""

    __slots__ = ("checked_bytes", "is_final", "mask", "opcode", "payload", "remaining_bytes")

    def __init__(self, opcode: int) -> None:
        self.opcode = opcode
        self.payload = bytearray()
        self.checked_bytes = 0  # how much of a text's payload is known to be UTF-8
        # Of the frame under way:
        self.is_final = False
        self.remaining_bytes = 0
        self.mask = b""  # turned so that its first byte meets the next byte of payload

    def check_text(self, chunk: bytes) -> bool:
        """Whether the text is still UTF-8 with ``chunk``, the end of ``payload``; at its end, whole UTF-8."""
        ends_here = self.is_final and not self.remaining_bytes
        if self.checked_bytes + len(chunk) == len(self.payload) and chunk.isascii():
            self.checked_bytes = len(self.payload)
            return True
        try:
            # At most 3 bytes of a character cut in two stand before the chunk: linear however it is split.
            text = self.payload[self.checked_bytes :]
            self.checked_bytes += utf_8_decode(text, "strict", ends_here)[1]
        except UnicodeDecodeError:
            return False
        return True


class Decoder:
    """Turns the bytes of one peer into messages and control frames.

    ``is_server``: frames must be masked, as a client's are; else they must not be (RFC 6455 §5.1).
    ``max_message_bytes`` bounds the payload of a message over all its fragments; it is judged on each frame's
    header, before the payload is read. ``streams_binary``: the payload of binary messages is given out as it
    comes, borders of frames and messages forgotten, nothing of it kept and without a bound, for a consumer
    whose own codec has the bounds.

    ``fault`` is what the peer did wrong: code 1002, 1007 or 1009. It is not meant to be raised: a raised
    exception holds the frames that hold this decoder. ``is_over`` is true after a fault or a CLOSE; nothing
    more is decoded then.

    Memory: idle it holds only its slots; at most 131 bytes of a header or control frame that is not whole;
    and the payload of the one message under way.
    """

    __slots__ = (
        "_held",
        "_is_server",
        "_max_message_bytes",
        "_message",
        "_streams_binary",
        "fault",
        "is_over",
    )

    def __init__(self, *, is_server: bool, max_message_bytes: int, streams_binary: bool = False) -> None:
        self.fault: RemoteProtocolError | None = None
        self.is_over = False
        self._is_server = is_server
        self._max_message_bytes = max_message_bytes
        self._streams_binary = streams_binary
        self._held = b""  # a header, or a control frame, that is not whole
        self._message: _Message | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes, in order: ``(opcode, payload)``.

        TEXT is a whole message in valid UTF-8; BINARY a whole message, or with ``streams_binary`` a piece
        that is not empty; PING, PONG; CLOSE with a payload that ``parse_close`` reads. On a violation what
        came before it is returned and ``fault`` is set. Never raises for what a peer sends; linear in
        ``data`` however the stream is split.
        """
        events: list[Event] = []
        if self.is_over:
            return events
        at = 0
        message = self._message
        if message is not None and message.remaining_bytes:
            at = self._take(message, data, 0, events)
            if self.is_over:
                return events
            message = self._message
        elif self._held:
            data = self._held + data
            self._held = b""
        end = len(data)
        is_server = self._is_server

        # Judged in the order in which the bytes come, so that the verdict does not hang on the split.
        while end - at >= 2:
            first = data[at]
            length = data[at + 1]
            start = at + 2
            if first not in _FIRST_BYTES:
                return self._fail(events, CLOSE_PROTOCOL_ERROR, _fault_of_first_byte(first))
            if (length >= _MASKED) is not is_server:
                rule = "frame of a client is not masked" if is_server else "frame of a server is masked"
                return self._fail(events, CLOSE_PROTOCOL_ERROR, rule)
            length &= 0x7F
            opcode = first & 0x0F
            if opcode >= _CLOSE:
                if length > MAX_CONTROL_BYTES:
                    text = f"control frame's payload exceeds {MAX_CONTROL_BYTES} bytes"
                    return self._fail(events, CLOSE_PROTOCOL_ERROR, text)
            elif (opcode == _CONTINUATION) is (message is None):
                text = "new message inside a fragmented one" if message else "continuation of no message"
                return self._fail(events, CLOSE_PROTOCOL_ERROR, text)

            if length > 125:
                start += 2 if length == 126 else 8
                if start > end:
                    break
                length = int.from_bytes(data[at + 2 : start])
                if length >> 63:
                    text = "highest bit of a 64-bit payload length is set"
                    return self._fail(events, CLOSE_PROTOCOL_ERROR, text)
            total = length if message is None else length + len(message.payload)
            if total > self._max_message_bytes and self._is_bounded(opcode, message):
                text = f"message of {total} bytes exceeds {self._max_message_bytes}"
                return self._fail(events, CLOSE_TOO_LARGE, text)
            if is_server:
                start += 4
                if start > end:
                    break
            stop = start + length

            if stop <= end and (opcode >= _CLOSE or (message is None and first >= _FINAL)):
                payload = data[start:stop]
                if is_server:
                    payload = apply_mask(payload, data[start - 4 : start])
                at = stop
                if opcode == _TEXT:
                    if not _is_utf8(payload):
                        return self._fail(events, CLOSE_INVALID_TEXT, "text message is not UTF-8")
                elif opcode == _CLOSE:
                    return self._end(events, payload)
                elif opcode == _BINARY and not payload and self._streams_binary:
                    continue
                events.append((opcode, payload))
                continue
            if opcode >= _CLOSE:
                break  # held until it is whole, so that it needs no state beside that of a message
            if message is None:
                message = self._message = _Message(opcode)
            message.is_final = first >= _FINAL
            message.remaining_bytes = length
            message.mask = data[start - 4 : start] if is_server else b""
            at = self._take(message, data, start, events)
            if self.is_over:
                return events
            message = self._message

        if at < end:
            self._held = data[at:]
        return events

    def _take(self, message: _Message, data: bytes, at: int, events: list[Event]) -> int:
        """Take what ``data`` has of the message's frame from ``at`` on; returns the place behind it."""
        chunk = data[at : at + message.remaining_bytes]
        size = len(chunk)
        message.remaining_bytes -= size
        if message.mask and size:
            chunk = apply_mask(chunk, message.mask)
            turn = size & 3
            message.mask = message.mask[turn:] + message.mask[:turn]
        ends_here = message.is_final and not message.remaining_bytes
        if message.opcode == _BINARY and self._streams_binary:
            if chunk:
                events.append((_BINARY, chunk))
        else:
            message.payload += chunk
            if message.opcode == _TEXT and (chunk or ends_here) and not message.check_text(chunk):
                self._fail(events, CLOSE_INVALID_TEXT, "text message is not UTF-8")
                return at + size
            if ends_here:
                events.append((message.opcode, bytes(message.payload)))
        if ends_here:
            self._message = None
        return at + size

    def _is_bounded(self, opcode: int, message: _Message | None) -> bool:
        if opcode >= _CLOSE:
            return False
        return not (self._streams_binary and (message.opcode if message else opcode) == _BINARY)

    def _end(self, events: list[Event], payload: bytes) -> list[Event]:
        """The peer's CLOSE: the last event, if it is one (RFC 6455 §5.5.1)."""
        if len(payload) == 1:
            return self._fail(events, CLOSE_PROTOCOL_ERROR, "close frame with half a code")
        if payload and not is_close_code(code := int.from_bytes(payload[:2])):
            return self._fail(events, CLOSE_PROTOCOL_ERROR, f"close frame with invalid code {code}")
        if not _is_utf8(payload[2:]):
            return self._fail(events, CLOSE_INVALID_TEXT, "close frame's reason is not UTF-8")
        events.append((_CLOSE, payload))
        self._forget()
        return events

    def _fail(self, events: list[Event], code: int, text: str) -> list[Event]:
        self.fault = RemoteProtocolError(code, text)
        self._forget()
        return events

    def _forget(self) -> None:
        self.is_over = True
        self._held = b""
        self._message = None


def encode(opcode: int, payload: bytes, mask: bytes | None = None, *, final: bool = True) -> bytes:
    """One frame. A client gives ``mask``, 4 unpredictable bytes for each frame (RFC 6455 §5.3, §10.3).

    The length is written in its shortest form. Raises ``LocalProtocolError`` for what no frame can say: an
    unknown opcode, a control frame that is fragmented or exceeds 125 bytes, a mask that is not 4 bytes.
    """
    if opcode not in _OPCODES:
        raise LocalProtocolError(f"no frame has opcode {opcode}")
    length = len(payload)
    if opcode >= _CLOSE:
        if not final:
            raise LocalProtocolError("control frame cannot be fragmented")
        if length > MAX_CONTROL_BYTES:
            raise LocalProtocolError(f"control frame of {length} bytes exceeds {MAX_CONTROL_BYTES}")
    first = opcode | _FINAL if final else int(opcode)
    masked = 0
    if mask is not None:
        if len(mask) != 4:
            raise LocalProtocolError(f"mask of {len(mask)} bytes is not 4")
        masked = _MASKED
        payload = mask + apply_mask(payload, mask)
    if length <= 125:
        return bytes((first, masked | length)) + payload
    if length <= 0xFFFF:
        return _HEADER_16.pack(first, masked | 126, length) + payload
    return _HEADER_64.pack(first, masked | 127, length) + payload


def encode_close(code: int, reason: str, mask: bytes | None = None) -> bytes:
    """A CLOSE frame, its ``reason`` cut to 123 bytes of UTF-8 on a character's border.

    A close never fails on its words: what UTF-8 cannot say (a lone surrogate) becomes ``?``. ``code`` 1005
    with no reason makes a frame without a code, as RFC 6455 §7.1.5 reads it. Raises ``LocalProtocolError``
    for a code that cannot stand in a frame, or a reason without one.
    """
    if code == CLOSE_NO_STATUS and not reason:
        return encode(_CLOSE, b"", mask)
    if not is_close_code(code):
        raise LocalProtocolError(f"close code {code} cannot stand in a frame")
    text = reason.encode(errors="replace")
    if len(text) > MAX_REASON_BYTES:
        text = text[:MAX_REASON_BYTES].decode(errors="ignore").encode()
    return encode(_CLOSE, code.to_bytes(2) + text, mask)


def parse_close(payload: bytes) -> tuple[int, str]:
    """Code and reason of a CLOSE event's payload; 1005, which no frame carries, when it is empty (§7.1.5)."""
    if not payload:
        return CLOSE_NO_STATUS, ""
    return int.from_bytes(payload[:2]), payload[2:].decode()


def is_close_code(code: int) -> bool:
    """Whether ``code`` may stand in a CLOSE frame (RFC 6455 §7.4): 1000–1003 and 1007–1011; 1012–1014, which
    IANA registered since; 3000–3999 for libraries; 4000–4999 for applications.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _fault_of_first_byte(first: int) -> str:
    if first & _RESERVED_BITS:
        return "reserved bit is set and no extension was negotiated"
    opcode = first & 0x0F
    if opcode not in _OPCODES:
        return f"opcode {opcode} is reserved"
    return "control frame is fragmented"
