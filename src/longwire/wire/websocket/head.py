"""The head of an HTTP/1.1 message, as far as the WebSocket handshake needs it (RFC 9112 §2, §5; RFC 9110 §5).

Gathers bytes up to the empty line, within a bound, and takes the head apart strictly: CRLF only, no folded
lines, no space before the colon. What two readers might understand differently is refused, not guessed. It
knows nothing of WebSocket.
"""

import re
from collections.abc import Mapping

from longwire.errors import LocalProtocolError, LongwireError

MAX_HEAD_BYTES = 8_192

_END = b"\r\n\r\n"
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Visible characters, space and tab, and above ASCII what older senders may put there (RFC 9110 §5.5).
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

# A repeat of these would be read differently by different readers.
_SINGLE = frozenset(
    ["content-length", "host", "origin", "sec-websocket-accept", "sec-websocket-key", "sec-websocket-version"]
)


class HeadError(LongwireError):
    """The bytes are no head that we accept; ``status`` is HTTP's word for why. Stays inside this package."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class HeadReader:
    """Gathers a head that comes in pieces; at most ``MAX_HEAD_BYTES`` are searched or kept before its end."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The head without its empty line, and the bytes behind it; None while it is not whole.

        Raises ``HeadError`` 431 for a head that exceeds ``MAX_HEAD_BYTES``, the empty line included.
        """
        held = self._held
        # Only the new bytes are searched, and the three that may begin the end.
        searched = max(0, len(held) - 3)
        held += data
        end = held.find(_END, searched, MAX_HEAD_BYTES)
        if end < 0:
            if len(held) >= MAX_HEAD_BYTES:
                self._held = bytearray()
                raise HeadError(431, f"header block exceeds {MAX_HEAD_BYTES} bytes")
            return None
        self._held = bytearray()
        return bytes(held[:end]), bytes(held[end + len(_END) :])


def split_head(head: bytes) -> tuple[str, dict[str, str]]:
    """The start line, and the headers: lower-case names, repeated ones joined by ``", "`` (RFC 9110 §5.3).

    Raises ``HeadError`` 400. Bytes above ASCII are read as Latin-1, which loses none.
    """
    start_line, *lines = head.decode("latin-1").split("\r\n")
    if not _VALUE.fullmatch(start_line):
        raise HeadError(400, "start line holds a control character")
    headers: dict[str, str] = {}
    for line in lines:
        if line[:1] in (" ", "\t"):
            raise HeadError(400, "header line is folded")
        name, colon, value = line.partition(":")
        if not colon or not is_token(name):
            raise HeadError(400, "header line has no valid name")
        value = value.strip(" \t")
        if not _VALUE.fullmatch(value):
            raise HeadError(400, "header value holds a control character")
        name = name.lower()
        if name in headers:
            if name in _SINGLE:
                raise HeadError(400, f"header {name} is repeated")
            value = f"{headers[name]}, {value}"
        headers[name] = value
    return start_line, headers


def is_token(text: str) -> bool:
    """Whether ``text`` is a token: a header's name, a method, a sub-protocol (RFC 9110 §5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def list_members(value: str) -> list[str]:
    """The members of a comma-separated header value, the empty ones left out (RFC 9110 §5.6.1)."""
    return [member for part in value.split(",") if (member := part.strip(" \t"))]


def has_member(value: str, member: str) -> bool:
    """Whether the list ``value`` names ``member`` (lower case), in letters of any case."""
    return member in (found.lower() for found in list_members(value))


def join_head(start_line: str, headers: Mapping[str, str]) -> bytes:
    """The bytes of a head, its empty line included.

    Raises ``LocalProtocolError`` where a line could be read as anything else: a control character in the
    start line or a value, above all CR and LF, or a name that is no token.
    """
    lines = [start_line]
    if not _VALUE.fullmatch(start_line):
        raise LocalProtocolError(f"start line {start_line!r} holds a character that HTTP does not carry")
    for name, value in headers.items():
        if not is_token(name):
            raise LocalProtocolError(f"{name!r} is no header name")
        if not _VALUE.fullmatch(value):
            raise LocalProtocolError(f"header {name} holds a character that HTTP does not carry")
        lines.append(f"{name}: {value}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
