"""The PROXY protocol's header, versions 1 and 2, as a sans-I/O codec (HAProxy's proxy-protocol.txt).

A proxy that relays a stream writes it before the client's first byte, to say who the client is. nginx writes
version 1, a line of text; most others version 2, which is binary. What follows the addresses of version 2 (TLVs)
is skipped as it comes, so that a header keeps at most 107 bytes, whatever length it announces.

    bytes ──► HeaderReader.feed ──► Header, and in ``trailing`` what the client itself has sent

Whether the peer may speak for others is the caller's to judge, and a header that never ends the caller's to time out.
"""

import ipaddress
import struct
from typing import NamedTuple

from longwire.errors import LocalProtocolError, RemoteProtocolError
from longwire.reasons import CloseCode

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
"""What version 2 begins with."""
MAX_LINE_BYTES = 107
"""The longest line of version 1, its CRLF included (§2.1)."""

_WORD = b"PROXY "
_FIRST_BYTES = frozenset((_WORD[0], SIGNATURE[0]))
_START_BYTES = 16
_unpack_start = struct.Struct(">12xBBH").unpack_from

_VERSION = 2
_LOCAL, _PROXY = 0, 1
_STREAM, _DATAGRAM = 1, 2
_INET, _INET6 = 1, 2
# By family: the bytes of both ends, AF_UNSPEC and AF_UNIX among them.
_ADDRESS_BYTES = (0, 12, 36, 216)
_IP_BYTES = {_INET: 4, _INET6: 16}


class Header(NamedTuple):
    """Whom the connection is relayed for: an IP address in its usual form, and a port.

    ``client`` is None where the proxy speaks for itself (its health checks: LOCAL) or does not say (UNKNOWN,
    UNSPEC, what is not TCP over IP). The connection counts as the proxy's own then.
    """

    client: str | None
    port: int


_NOBODY = Header(None, 0)


def begins_header(first: int) -> bool:
    """Whether a stream that begins with this byte may begin with a header. ``P`` begins HTTP's POST, too."""
    return first in _FIRST_BYTES


class HeaderReader:
    """Reads one header, however the transport split it.

    In the end either ``feed`` gave a ``Header``, and ``trailing`` holds what came behind it; or ``fault`` says
    why it is none.
    """

    __slots__ = ("_header", "_held", "_is_over", "_left", "fault", "trailing")

    def __init__(self) -> None:
        self.fault: RemoteProtocolError | None = None
        self.trailing = b""
        self._held = b""
        self._header: Header | None = None
        self._left = 0
        """Bytes of the header that are still to be skipped."""
        self._is_over = False

    def feed(self, data: bytes) -> Header | None:
        """The header once it is whole; None before, and for what is no header, whose bytes are let go.

        Raises ``LocalProtocolError`` when called again after a header: those bytes are the client's.
        """
        if self.fault is not None:
            return None
        if self._is_over:
            raise LocalProtocolError("the PROXY header is over; what follows are the client's bytes")
        if self._header is None:
            held = self._held + data
            try:
                end = self._parse(held)
            except RemoteProtocolError as fault:
                self.fault = fault
                self._held = b""
                return None
            if self._header is None:
                self._held = held
                return None
            self._held = b""
            data = held[end:]
        skipped = min(self._left, len(data))
        self._left -= skipped
        if self._left:
            return None
        self._is_over = True
        self.trailing = data[skipped:]
        return self._header

    def _parse(self, held: bytes) -> int:
        """Sets ``_header`` and ``_left`` once the addresses are whole; gives where they end."""
        if held.startswith(SIGNATURE[:1]):
            return self._parse_binary(held)
        if not _WORD.startswith(held[: len(_WORD)]):
            raise _fault("the PROXY header begins with neither PROXY nor the signature of version 2")
        end = held.find(b"\r\n", 0, MAX_LINE_BYTES)
        if end >= 0:
            self._header = _parse_line(held[:end])
            return end + 2
        if len(held) >= MAX_LINE_BYTES:
            raise _fault(f"the PROXY line exceeds {MAX_LINE_BYTES} bytes")
        return 0

    def _parse_binary(self, held: bytes) -> int:
        if not SIGNATURE.startswith(held[: len(SIGNATURE)]):
            raise _fault("the signature of the PROXY header is not version 2's")
        if len(held) < _START_BYTES:
            return 0
        command, family, length = _unpack_start(held)
        size = _address_bytes(command, family, length)
        end = _START_BYTES + size
        if len(held) < end:
            return 0
        self._header = _client_of(held, family >> 4) if size else _NOBODY
        self._left = length - size
        return end


def _address_bytes(command: int, family: int, length: int) -> int:
    """The bytes of addresses that are to be read; 0 where they say nothing of the client. Raises the fault."""
    if command >> 4 != _VERSION:
        raise _fault(f"the PROXY header has version {command >> 4}, not {_VERSION}")
    if command & 15 == _LOCAL:
        return 0
    if command & 15 != _PROXY:
        raise _fault(f"the PROXY header has the unknown command {command & 15}")
    address_family, transport = family >> 4, family & 15
    if address_family >= len(_ADDRESS_BYTES) or transport > _DATAGRAM:
        raise _fault(f"the PROXY header has the unknown family 0x{family:02x}")
    size = _ADDRESS_BYTES[address_family]
    if length < size:
        raise _fault(f"the PROXY header announces {length} bytes, and its addresses take {size}")
    return size if transport == _STREAM and address_family in _IP_BYTES else 0


def _client_of(held: bytes, address_family: int) -> Header:
    ip_bytes = _IP_BYTES[address_family]
    port_at = _START_BYTES + 2 * ip_bytes
    port = int.from_bytes(held[port_at : port_at + 2])
    return Header(_text(ipaddress.ip_address(held[_START_BYTES : _START_BYTES + ip_bytes])), port)


def _parse_line(line: bytes) -> Header:
    """The header of a line of version 1 without its end (§2.1)."""
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return _NOBODY
    words = line.decode("latin-1").split(" ")
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise _fault("the PROXY line is malformed")
    family = ipaddress.IPv4Address if words[1] == "TCP4" else ipaddress.IPv6Address
    try:
        source, _ = family(words[2]), family(words[3])
    except ValueError:
        raise _fault(f"the PROXY line's addresses are not those of {words[1]}") from None
    if "%" in line.decode("latin-1"):
        raise _fault("the PROXY line's addresses name a zone")
    if not all(map(_is_port, words[4:])):
        raise _fault("the PROXY line's ports are no numbers from 0 to 65535")
    return Header(_text(source), int(words[4]))


def _is_port(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) <= 5 and str(int(word)) == word and int(word) <= 65_535


def _text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """One spelling for one client: an IPv4 address in IPv6's clothes is the IPv4 address."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _fault(message: str) -> RemoteProtocolError:
    return RemoteProtocolError(CloseCode.PROTOCOL_ERROR, message)
