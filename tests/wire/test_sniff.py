"""Which protocol a connection speaks, by its first byte."""

import pytest

from longwire.wire import native
from longwire.wire.packets import Ping
from longwire.wire.sniff import Protocol, sniff


def test_a_native_frame_is_native() -> None:
    assert sniff(native.encode(Ping())[0]) is Protocol.NATIVE


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE"])
def test_a_request_of_any_http_method_goes_to_the_websocket_handshake(method: bytes) -> None:
    assert sniff(method[0]) is Protocol.WEBSOCKET


@pytest.mark.parametrize("first", [0x00, 0x10, 0x16, 0x20, ord("g"), ord("{"), 0xA6, 0xA8, 0xFF])
def test_a_byte_of_no_known_protocol_is_none(first: int) -> None:
    assert sniff(first) is None


def test_every_byte_has_an_answer() -> None:
    known = {first for first in range(256) if sniff(first) is not None}
    assert known == {native.MAGIC, *b"GHPDOCT"}
