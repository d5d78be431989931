"""Our codec and the library ``websockets`` (its sans-I/O core) at either end of one connection, no socket."""

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.http11 import Request as LibraryRequest
from websockets.http11 import Response as LibraryResponse
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from longwire.wire.websocket import (
    ClientHandshake,
    Decoder,
    Opcode,
    ServerHandshake,
    accept_response,
    client_request,
    encode,
    encode_close,
    new_key,
    parse_close,
    refuse_response,
)

MASK = b"\x01\x02\x03\x04"
MAX = 1 << 20

messages = st.lists(
    st.one_of(
        st.tuples(st.just(1), st.text(max_size=300).map(str.encode)),
        st.tuples(st.just(2), st.one_of(st.binary(max_size=300), st.just(b"x" * 70_000))),
        st.tuples(st.sampled_from([9, 10]), st.binary(max_size=125)),
    ),
    max_size=6,
)


def library_client() -> ClientProtocol:
    return ClientProtocol(
        parse_uri("ws://push.example/ws?a=b"), subprotocols=[Subprotocol("longwire.v1")], max_size=MAX
    )


def open_library_client() -> tuple[ClientProtocol, Decoder]:
    """The library as client on our server, behind the handshake."""
    theirs = library_client()
    theirs.send_request(theirs.connect())
    handshake = ServerHandshake()
    request = handshake.feed(b"".join(theirs.data_to_send()))
    assert request is not None, handshake.refusal
    assert (request.path, request.query, request.subprotocols) == ("/ws", "a=b", ("longwire.v1",))
    theirs.receive_data(accept_response(request, "longwire.v1"))
    assert theirs.state is State.OPEN
    assert theirs.subprotocol == "longwire.v1"
    assert [type(event) for event in theirs.events_received()] == [LibraryResponse]
    return theirs, Decoder(is_server=True, max_message_bytes=MAX)


def open_library_server() -> tuple[ServerProtocol, Decoder]:
    """The library as server of our client, behind the handshake."""
    theirs = ServerProtocol(subprotocols=[Subprotocol("longwire.v1")], max_size=MAX)
    key = new_key()
    theirs.receive_data(client_request("push.example", "/ws?a=b", key, ["longwire.v1"], "https://a.example"))
    (request,) = theirs.events_received()
    assert isinstance(request, LibraryRequest)
    theirs.send_response(theirs.accept(request))
    handshake = ClientHandshake(key, ["longwire.v1"])
    response = handshake.feed(b"".join(theirs.data_to_send()))
    assert response is not None, handshake.fault
    assert response.subprotocol == "longwire.v1"
    return theirs, Decoder(is_server=False, max_message_bytes=MAX)


def send_with_library(theirs: Protocol, opcode: int, payload: bytes) -> bytes:
    send = {1: theirs.send_text, 2: theirs.send_binary, 9: theirs.send_ping, 10: theirs.send_pong}[opcode]
    send(payload)
    return b"".join(theirs.data_to_send())


def received_by_library(theirs: Protocol) -> list[tuple[int, bytes]]:
    frames = [event for event in theirs.events_received() if isinstance(event, Frame)]
    return [(int(frame.opcode), bytes(frame.data)) for frame in frames]


@settings(max_examples=50, deadline=None)
@given(messages, st.booleans())
def test_messages_go_both_ways_between_us_and_the_library(
    sent: list[tuple[int, bytes]], library_is_client: bool
) -> None:
    theirs, ours = open_library_client() if library_is_client else open_library_server()
    mask = None if library_is_client else MASK
    events = ours.feed(b"".join(send_with_library(theirs, *message) for message in sent))
    assert events == sent
    assert ours.fault is None
    theirs.receive_data(b"".join(encode(*message, mask) for message in sent))
    assert received_by_library(theirs) == sent
    assert theirs.parser_exc is None


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=10), min_size=1, max_size=5), st.booleans())
def test_fragments_of_either_are_one_message_for_the_other(pieces: list[str], library_is_client: bool) -> None:
    theirs, ours = open_library_client() if library_is_client else open_library_server()
    mask = None if library_is_client else MASK
    last = len(pieces) - 1
    for number, piece in enumerate(pieces):
        send = theirs.send_text if number == 0 else theirs.send_continuation
        send(piece.encode(), fin=number == last)
        theirs.receive_data(encode(0 if number else 1, piece.encode(), mask, final=number == last))
    assert ours.feed(b"".join(theirs.data_to_send())) == [(Opcode.TEXT, "".join(pieces).encode())]
    assert b"".join(data for _, data in received_by_library(theirs)) == "".join(pieces).encode()
    assert theirs.parser_exc is None


def test_a_close_of_either_is_understood_by_the_other() -> None:
    theirs, ours = open_library_client()
    theirs.send_close(4000, "går")
    ((opcode, payload),) = ours.feed(b"".join(theirs.data_to_send()))
    assert (opcode, parse_close(payload)) == (Opcode.CLOSE, (4000, "går"))
    server, _ = open_library_server()
    server.receive_data(encode_close(4100, "ü" * 100, MASK))
    assert server.close_rcvd is not None
    assert (server.close_rcvd.code, server.close_rcvd.reason) == (4100, "ü" * 61)


def test_the_library_understands_our_refusal() -> None:
    theirs = library_client()
    theirs.send_request(theirs.connect())
    theirs.receive_data(refuse_response(503, "full"))
    (response,) = theirs.events_received()
    assert isinstance(response, LibraryResponse)
    assert (response.status_code, response.body) == (503, b"full\n")
