"""The PROXY header against HAProxy's specification: both versions, in any pieces, and everything that is none."""

import ipaddress
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longwire.errors import LocalProtocolError
from longwire.reasons import CloseCode
from longwire.wire.proxy_protocol import MAX_LINE_BYTES, SIGNATURE, Header, HeaderReader, begins_header

LOCAL, PROXY = 0x20, 0x21
NOBODY = Header(None, 0)
V4 = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + struct.pack(">HH", 56_324, 443)
V6 = ipaddress.ip_address("2001:db8::7").packed + ipaddress.ip_address("2001:db8::1").packed + b"\x01\x00\x01\xbb"
MAPPED = ipaddress.ip_address("::ffff:192.0.2.1").packed * 2 + b"\x00\x05\x00\x06"
# PP2_TYPE_ALPN "h2", PP2_TYPE_NOOP, PP2_TYPE_UNIQUE_ID and one of no known type (§2.2).
TLVS = b"\x01\x00\x02h2" + b"\x04\x00\x00" + b"\x05\x00\x03abc" + b"\xee\x00\x05\r\n\r\n\0"

unhurried = settings(deadline=None)


def binary(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + struct.pack(">BBH", command, family, len(body) if length is None else length) + body


WORST_LINE = b"PROXY UNKNOWN " + b" ".join([b":".join([b"ffff"] * 8)] * 2 + [b"65535"] * 2) + b"\r\n"
VALID = [
    (b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n", Header("192.168.0.1", 56_324)),
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", Header("255.255.255.255", 65_535)),
    (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", Header("0.0.0.0", 0)),
    (b"PROXY TCP6 2001:DB8::7 2001:db8::1 256 443\r\n", Header("2001:db8::7", 256)),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 5 6\r\n", Header("192.0.2.1", 5)),
    (b"PROXY TCP6 " + WORST_LINE[14:], Header(":".join(["ffff"] * 8), 65_535)),
    (b"PROXY UNKNOWN\r\n", NOBODY),
    (b"PROXY UNKNOWN whatever \xff\0\n stands here\r\n", NOBODY),
    (WORST_LINE, NOBODY),
    (binary(PROXY, 0x11, V4), Header("192.0.2.1", 56_324)),
    (binary(PROXY, 0x21, V6), Header("2001:db8::7", 256)),
    (binary(PROXY, 0x21, MAPPED), Header("192.0.2.1", 5)),
    (binary(PROXY, 0x11, V4 + TLVS), Header("192.0.2.1", 56_324)),
    (binary(PROXY, 0x21, V6 + TLVS), Header("2001:db8::7", 256)),
    (binary(PROXY, 0x11, V4 + bytes(65_535 - 12)), Header("192.0.2.1", 56_324)),
    (binary(PROXY, 0x00, b""), NOBODY),
    (binary(PROXY, 0x00, TLVS), NOBODY),
    (binary(PROXY, 0x10, V4), NOBODY),
    (binary(PROXY, 0x12, V4), NOBODY),
    (binary(PROXY, 0x22, V6), NOBODY),
    (binary(PROXY, 0x31, bytes(216)), NOBODY),
    (binary(PROXY, 0x32, bytes(216) + TLVS), NOBODY),
    (binary(LOCAL, 0x00, b""), NOBODY),
    (binary(LOCAL, 0x11, V4 + TLVS), NOBODY),
    (binary(LOCAL, 0xFF, b"?"), NOBODY),
]
WRONG = [
    b"GET / HTTP/1.1\r\n",
    b"POST / HTTP/1.1\r\n",
    b"PROXY  TCP4 1.2.3.4 1.2.3.4 5 6\r\n",
    b"PROXY TCP4  1.2.3.4 1.2.3.4 5 6\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 5 6 \r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 5\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 5 6 7\r\n",
    b"PROXY\r\n",
    b"PROXY \r\n",
    b"PROXY TCP4\r\n",
    b"PROXY TCP5 1.2.3.4 1.2.3.4 5 6\r\n",
    b"PROXY tcp4 1.2.3.4 1.2.3.4 5 6\r\n",
    b"PROXY UNKNOWNS\r\n",
    b"proxy TCP4 1.2.3.4 1.2.3.4 5 6\r\n",
    b"PROXY TCP4 01.2.3.4 1.2.3.4 5 6\r\n",
    b"PROXY TCP4 1.2.3.256 1.2.3.4 5 6\r\n",
    b"PROXY TCP4 1.2.3 1.2.3.4 5 6\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3 5 6\r\n",
    b"PROXY TCP4 ::1 ::1 5 6\r\n",
    b"PROXY TCP6 1.2.3.4 1.2.3.4 5 6\r\n",
    b"PROXY TCP6 fe80::1%eth0 ::1 5 6\r\n",
    b"PROXY TCP6 ::1 fe80::1%eth0 5 6\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 05 6\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 5 65536\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 -5 6\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 +5 6\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 \xb2 6\r\n",
    b"PROXY TCP4 1.2.3.4 1.2.3.4 5 6\n\r\n",
    b"PROXY TCP4 1.2.3.4\t1.2.3.4 5 6\r\n",
    WORST_LINE[:-2] + b" \r\n",
    b"PROXY " + bytes(200),
    b"\r\n\r\n\0\r\nQUIT\r" + bytes(20),
    b"\r\n\r\nGET / HTTP/1.1\r\n",
    binary(0x11, 0x11, V4),
    binary(0x31, 0x11, V4),
    binary(0x22, 0x11, V4),
    binary(0x2F, 0x11, V4),
    binary(PROXY, 0x41, V4),
    binary(PROXY, 0xF1, bytes(300)),
    binary(PROXY, 0x13, V4),
    binary(PROXY, 0x1F, V4),
    binary(PROXY, 0x11, V4, length=11),
    binary(PROXY, 0x21, V6, length=35),
    binary(PROXY, 0x31, bytes(216), length=215),
    binary(PROXY, 0x11, V4, length=0),
]
BEHIND = b"\xa7\x10\x03\0 the client's \r\n"


def read(*parts: bytes) -> tuple[Header | None, bytes, HeaderReader]:
    """The header of these pieces and what stands behind it; no more is fed once the header is whole."""
    reader = HeaderReader()
    for at, part in enumerate(parts):
        header = reader.feed(part)
        if header is not None:
            return header, reader.trailing + b"".join(parts[at + 1 :]), reader
    return None, b"", reader


@pytest.mark.parametrize(("data", "header"), VALID)
def test_a_header_and_what_stands_behind_it_are_told_apart(data: bytes, header: Header) -> None:
    assert begins_header(data[0])
    assert read(data)[:2] == (header, b"")
    assert read(data + BEHIND)[:2] == (header, BEHIND)
    # One header, never two: the next one is the client's.
    assert read(data + data)[:2] == (header, data)


@pytest.mark.parametrize(("data", "header"), VALID)
def test_a_header_byte_by_byte_is_the_same_and_keeps_little(data: bytes, header: Header) -> None:
    reader = HeaderReader()
    for at in range(len(data) - 1):
        assert reader.feed(data[at : at + 1]) is None
        assert len(reader._held) <= MAX_LINE_BYTES
    assert reader.feed(data[-1:]) == header
    assert reader.trailing == b""


@pytest.mark.parametrize(("data", "header"), [one for one in VALID if len(one[0]) < 400])
def test_a_header_split_anywhere_is_the_same(data: bytes, header: Header) -> None:
    whole = data + BEHIND
    for at in range(len(whole)):
        assert read(whole[:at], whole[at:])[:2] == (header, BEHIND), at


@pytest.mark.parametrize(("data", "header"), [one for one in VALID if len(one[0]) < 400])
def test_a_header_that_is_cut_is_neither_a_header_nor_a_fault(data: bytes, header: Header) -> None:
    for at in range(len(data)):
        cut, _, reader = read(data[:at])
        assert cut is None
        assert reader.fault is None
        assert reader.trailing == b""


@pytest.mark.parametrize("data", WRONG)
def test_what_is_no_header_is_a_fault_in_any_pieces(data: bytes) -> None:
    for parts in ([data], [data[at : at + 1] for at in range(len(data))]):
        header, _, reader = read(*parts)
        assert header is None
        assert reader.fault is not None
        assert reader.fault.code == CloseCode.PROTOCOL_ERROR
        assert "PROXY" in reader.fault.reason
        # It stays one, whatever comes.
        assert reader.feed(VALID[0][0]) is None
        assert reader._held == b""


def test_a_line_without_an_end_is_a_fault_at_its_longest_length() -> None:
    line = b"PROXY UNKNOWN " + b"x" * MAX_LINE_BYTES
    assert read(line[: MAX_LINE_BYTES - 1])[2].fault is None
    fault = read(line[:MAX_LINE_BYTES])[2].fault
    assert fault is not None
    assert str(MAX_LINE_BYTES) in fault.reason


def test_what_follows_a_header_is_not_fed_to_it() -> None:
    *_, reader = read(VALID[0][0])
    with pytest.raises(LocalProtocolError, match="over"):
        reader.feed(b"\xa7")


def test_only_two_bytes_begin_a_header() -> None:
    assert [first for first in range(256) if begins_header(first)] == [0x0D, ord("P")]


addresses_4 = st.ip_addresses(v=4)
addresses_6 = st.ip_addresses(v=6).filter(lambda ip: ip.ipv4_mapped is None)
ports = st.integers(0, 65_535)


@unhurried
@given(st.one_of(st.tuples(addresses_4, addresses_4), st.tuples(addresses_6, addresses_6)), ports, ports, st.data())
def test_both_versions_say_the_same_of_every_address(ends, source_port, target_port, data) -> None:
    source, target = ends
    line = f"PROXY TCP{source.version} {source} {target} {source_port} {target_port}\r\n".encode()
    body = source.packed + target.packed + struct.pack(">HH", source_port, target_port)
    tlvs = data.draw(st.binary(max_size=300))
    for header in (line, binary(PROXY, 0x11 if source.version == 4 else 0x21, body + tlvs)):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(header)), max_size=6)))
        whole = header + BEHIND
        parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        assert read(*parts)[:2] == (Header(str(source), source_port), BEHIND)


@unhurried
@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]))
def test_garbage_is_read_the_same_in_one_piece_and_in_many(garbage: bytes, start: bytes) -> None:
    data = start + garbage
    header, trailing, reader = read(data)
    again, rest, other = read(*(data[at : at + 1] for at in range(len(data))))
    assert (header, trailing) == (again, rest)
    assert (reader.fault is None) == (other.fault is None)
    assert len(reader._held) <= MAX_LINE_BYTES
