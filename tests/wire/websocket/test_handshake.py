"""The opening handshake against RFC 6455 §4, both ends."""

import base64
import http

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longwire.errors import LocalProtocolError
from longwire.wire.websocket.handshake import (
    ClientHandshake,
    Refusal,
    Request,
    Response,
    ServerHandshake,
    accept_response,
    client_request,
    new_key,
    refuse_response,
)

# The key and its answer of RFC 6455 §1.3.
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

HEADERS = {
    "Host": "push.example:7300",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request_bytes(line: str = "GET /ws HTTP/1.1", **changes: str | None) -> bytes:
    """A valid request, with headers changed, added or (None) left out; ``_`` stands for ``-``."""
    headers: dict[str, str | None] = {name.lower(): value for name, value in HEADERS.items()}
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def parse(stream: bytes) -> Request:
    handshake = ServerHandshake()
    request = handshake.feed(stream)
    assert handshake.refusal is None
    assert request is not None
    return request


def refusal(stream: bytes) -> Refusal:
    handshake = ServerHandshake()
    assert handshake.feed(stream) is None
    assert handshake.refusal is not None
    return handshake.refusal


# Server


def test_the_handshake_of_the_rfc_is_read_and_answered() -> None:
    stream = (
        b"GET /chat?room=1&x=%20 HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    request = parse(stream)
    assert (request.path, request.query, request.origin) == ("/chat", "room=1&x=%20", "http://example.com")
    assert (request.subprotocols, request.key) == (("chat", "superchat"), KEY)
    assert request.headers["host"] == "server.example.com"
    assert accept_response(request, "chat") == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )
    assert b"Protocol:" not in accept_response(request, None)


def test_a_client_that_is_no_browser_has_no_origin_and_may_offer_no_subprotocol() -> None:
    request = parse(request_bytes())
    assert (request.origin, request.subprotocols, request.query) == (None, (), "")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/ws?", "/ws", ""),
        ("/ws?a?b", "/ws", "a?b"),
        ("//x/y", "//x/y", ""),
        ("http://push.example/ws?a", "/ws", "a"),
        ("WS://push.example", "/", ""),
        ("wss://push.example?a", "/", "a"),
    ],
)
def test_the_target_comes_in_either_form(target: str, path: str, query: str) -> None:
    request = parse(request_bytes(f"GET {target} HTTP/1.1"))
    assert (request.path, request.query) == (path, query)


@pytest.mark.parametrize(
    "changes",
    [
        {"connection": "keep-alive, Upgrade"},
        {"connection": "UPGRADE"},
        {"upgrade": "WebSocket"},
        {"upgrade": "h2c, websocket"},
        {"content_length": "0"},
        {"sec_websocket_extensions": "permessage-deflate"},
        {"sec_websocket_protocol": ""},
        {"host": "[::1]:7300"},
    ],
)
def test_what_real_clients_send_is_taken(changes: dict[str, str]) -> None:
    assert parse(request_bytes(**changes)).path == "/ws"


REFUSED: list[tuple[int, bytes]] = [
    (405, request_bytes("POST /ws HTTP/1.1")),
    (405, request_bytes("HEAD /ws HTTP/1.1")),
    (505, request_bytes("GET /ws HTTP/1.0")),
    (505, request_bytes("GET /ws HTTP/2.0")),
    (400, request_bytes("GET /ws")),
    (400, request_bytes("GET  /ws HTTP/1.1")),
    (400, request_bytes("GET /ws HTTP/1.1 ")),
    (400, request_bytes("GET /ws http/1.1")),
    (400, request_bytes("G@T /ws HTTP/1.1")),
    (400, request_bytes("GET ws HTTP/1.1")),
    (400, request_bytes("GET * HTTP/1.1")),
    (400, request_bytes("GET /ws#a HTTP/1.1")),
    (400, request_bytes("GET /w\xe9 HTTP/1.1")),
    (400, request_bytes("GET ftp://a/ws HTTP/1.1")),
    (400, request_bytes("")),
    (400, request_bytes(host=None)),
    (400, request_bytes(host="")),
    (400, request_bytes(host="a/b")),
    (400, request_bytes(Host="b")),
    (426, request_bytes(upgrade=None)),
    (426, request_bytes(upgrade="h2c")),
    (400, request_bytes(connection=None)),
    (400, request_bytes(connection="keep-alive")),
    (426, request_bytes(sec_websocket_version=None)),
    (426, request_bytes(sec_websocket_version="8")),
    (426, request_bytes(sec_websocket_version="13, 8")),
    (400, request_bytes(sec_websocket_key=None)),
    (400, request_bytes(sec_websocket_key="")),
    (400, request_bytes(sec_websocket_key=base64.b64encode(b"x" * 15).decode())),
    (400, request_bytes(sec_websocket_key=base64.b64encode(b"x" * 17).decode())),
    (400, request_bytes(sec_websocket_key="!" * 22 + "==")),
    (400, request_bytes(Sec_WebSocket_Key=KEY)),
    (400, request_bytes(sec_websocket_protocol="a b")),
    (400, request_bytes(content_length="5")),
    (400, request_bytes(transfer_encoding="chunked")),
    (400, request_bytes(x="a\r\n folded")),
    (400, request_bytes(x="a\nb: c")),
    (431, request_bytes(x="a" * 8_192)),
]


@pytest.mark.parametrize(("status", "stream"), REFUSED)
def test_a_request_that_is_no_handshake_is_refused_with_its_status(status: int, stream: bytes) -> None:
    refused = refusal(stream)
    assert refused.status == status
    assert refuse_response(*refused).startswith(f"HTTP/1.1 {status} ".encode())


def test_a_version_that_is_not_spoken_is_told_the_one_that_is() -> None:
    answer = refuse_response(*refusal(request_bytes(sec_websocket_version="8")))
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer
    assert b"\r\nUpgrade: websocket\r\n" in answer


def test_a_refusal_is_a_whole_http_answer() -> None:
    assert refuse_response(503, "node is full, später", retry_after_s=7) == (
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 22\r\nConnection: close\r\nRetry-After: 7\r\n\r\nnode is full, sp\xc3\xa4ter\n"
    )
    assert b"\r\nAllow: GET\r\n" in refuse_response(405, "no")
    for status in (101, 200, 302, 499, 600, 0):
        with pytest.raises(LocalProtocolError):
            refuse_response(status, "no")


def test_nothing_of_the_peer_can_split_a_refusal() -> None:
    head, _, body = refuse_response(400, "a\r\nSet-Cookie: b\r\n\r\n<html>\ud800").partition(b"\r\n\r\n")
    assert b"Cookie" not in head
    assert f"Content-Length: {len(body)}".encode() in head


def test_bytes_behind_the_request_are_kept_for_the_decoder() -> None:
    handshake = ServerHandshake()
    assert handshake.feed(request_bytes() + b"\x82\x80mask") is not None
    assert handshake.trailing == b"\x82\x80mask"


def test_frames_are_not_fed_to_a_handshake_that_is_over() -> None:
    handshake = ServerHandshake()
    handshake.feed(request_bytes())
    with pytest.raises(LocalProtocolError):
        handshake.feed(b"\x82\x80mask")


def test_a_refused_client_may_go_on_talking_and_is_not_heard() -> None:
    handshake = ServerHandshake()
    assert handshake.feed(request_bytes(host=None)) is None
    assert handshake.feed(request_bytes()) is None
    assert handshake.refusal is not None
    assert handshake.trailing == b""


def test_a_subprotocol_that_was_not_offered_is_never_chosen() -> None:
    request = parse(request_bytes(sec_websocket_protocol="longwire.v1, longwire.v1.json"))
    assert request.subprotocols == ("longwire.v1", "longwire.v1.json")
    with pytest.raises(LocalProtocolError):
        accept_response(request, "mqtt")
    with pytest.raises(LocalProtocolError):
        accept_response(request, "longwire.v1\r\nX: y")


def test_an_endless_head_is_refused_at_8192_bytes() -> None:
    handshake = ServerHandshake()
    handshake.feed(b"GET /ws HTTP/1.1\r\n")
    for _ in range(8_192):
        handshake.feed(b"x")
    assert handshake.refusal is not None
    assert handshake.refusal.status == 431


@given(st.lists(st.integers(0, 400), max_size=30), st.booleans())
def test_a_request_reads_the_same_at_any_split(cuts: list[int], is_valid: bool) -> None:
    stream = request_bytes(sec_websocket_protocol="a, b", connection="Upgrade" if is_valid else "close")
    whole, split, start = ServerHandshake(), ServerHandshake(), 0
    expected = whole.feed(stream + b"behind")
    got = None
    for cut in [*sorted(cut for cut in cuts if cut < len(stream)), len(stream) + 6]:
        got, start = split.feed((stream + b"behind")[start:cut]), cut
    assert got == expected
    assert (split.refusal, split.trailing) == (whole.refusal, whole.trailing)


@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=60).map(lambda noise: b"GET /ws HTTP/1.1\r\n" + noise + b"\r\n\r\n"),
        st.builds(
            lambda at, noise: request_bytes()[:at] + noise + request_bytes()[at:],
            st.integers(0, 150),
            st.binary(max_size=4),
        ),
    )
)
def test_garbage_gives_a_request_a_refusal_or_nothing(stream: bytes) -> None:
    handshake = ServerHandshake()
    request = handshake.feed(stream)
    assert request is None or handshake.refusal is None
    if handshake.refusal is not None:
        assert handshake.refusal.status in (400, 405, 426, 431, 505)
        refuse_response(*handshake.refusal)


# Client


def answer_bytes(line: str = "HTTP/1.1 101 Switching Protocols", **changes: str | None) -> bytes:
    headers: dict[str, str | None] = {
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-accept": ACCEPT,
    }
    headers |= {name.replace("_", "-"): value for name, value in changes.items()}
    lines = [line, *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def test_our_client_and_our_server_agree() -> None:
    key = new_key()
    sent = client_request(
        "push.example:7300", "/ws?a=b", key, ["longwire.v1"], "https://app.example", {"User-Agent": "lw/1"}
    )
    request = parse(sent)
    assert (request.path, request.query, request.key) == ("/ws", "a=b", key)
    assert (request.subprotocols, request.origin) == (("longwire.v1",), "https://app.example")
    assert request.headers["user-agent"] == "lw/1"
    handshake = ClientHandshake(key, ["longwire.v1"])
    response = handshake.feed(accept_response(request, "longwire.v1") + b"\x82\x00")
    assert response is not None
    assert (response.status, response.subprotocol) == (101, "longwire.v1")
    assert (handshake.fault, handshake.trailing) == (None, b"\x82\x00")


def test_keys_differ() -> None:
    assert len({new_key() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "answer",
    [
        answer_bytes("HTTP/1.1 200 OK"),
        answer_bytes("HTTP/2 101 x"),
        answer_bytes("HTTP/1.1 1O1 x"),
        answer_bytes("ICY 101 x"),
        answer_bytes(upgrade=None),
        answer_bytes(upgrade="h2c"),
        answer_bytes(connection=None),
        answer_bytes(connection="close"),
        answer_bytes(sec_websocket_accept=None),
        answer_bytes(sec_websocket_accept=ACCEPT.lower()),
        answer_bytes(sec_websocket_extensions="permessage-deflate"),
        answer_bytes(sec_websocket_protocol="mqtt"),
        answer_bytes(sec_websocket_protocol="a, b"),
        answer_bytes(x="a\r\n folded"),
        answer_bytes(x="a" * 8_192),
    ],
)
def test_an_answer_that_opens_nothing_is_a_fault(answer: bytes) -> None:
    handshake = ClientHandshake(KEY, ["a", "b"])
    assert handshake.feed(answer) is None
    assert handshake.fault is not None
    assert handshake.fault.code == 1002
    assert handshake.feed(answer) is None


@pytest.mark.parametrize(
    "changes",
    [{}, {"upgrade": "WebSocket"}, {"connection": "keep-alive, upgrade"}, {"sec_websocket_protocol": "b"}],
)
def test_an_answer_of_the_rfc_opens(changes: dict[str, str]) -> None:
    response = ClientHandshake(KEY, ["a", "b"]).feed(answer_bytes(**changes))
    assert response is not None
    assert response.subprotocol == changes.get("sec_websocket_protocol")
    assert ClientHandshake(KEY).feed(answer_bytes("HTTP/1.1 101")) is not None


def test_a_refusing_server_is_understood() -> None:
    handshake = ClientHandshake(KEY)
    assert handshake.feed(refuse_response(503, "full", retry_after_s=30)) is None
    assert isinstance(handshake.answer, Response)
    assert (handshake.answer.status, handshake.answer.headers["retry-after"]) == (503, "30")
    assert str(handshake.fault) == "handshake was answered with status 503, not 101"
    assert handshake.trailing == b"full\n"


@pytest.mark.parametrize("status", [status.value for status in http.HTTPStatus if status >= 400])
def test_each_refusal_of_ours_is_readable_for_our_client(status: int) -> None:
    handshake = ClientHandshake(KEY)
    handshake.feed(refuse_response(status, "why"))
    assert handshake.answer is not None
    assert handshake.answer.status == status


BAD_CALLS: list[dict[str, object]] = [
    {"host": "a\r\nX: y"},
    {"host": ""},
    {"host": "a b"},
    {"path": "ws"},
    {"path": ""},
    {"path": "/w s"},
    {"path": "/ws\r\nX: y"},
    {"path": "/ws#a"},
    {"path": "/é"},
    {"key": "short"},
    {"key": KEY + "\r\nX: y"},
    {"subprotocols": ["a", "a"]},
    {"subprotocols": ["a b"]},
    {"subprotocols": ["a\r\nX: y"]},
    {"subprotocols": [""]},
    {"origin": "https://a\r\nX: y"},
    {"headers": {"X": "a\r\nY: b"}},
    {"headers": {"X\r\nY": "a"}},
    {"headers": {"X": "€"}},
    {"headers": {"HOST": "b"}},
    {"headers": {"sec-websocket-key": KEY}},
    {"headers": {"Content-Length": "5"}},
]


@pytest.mark.parametrize("changes", BAD_CALLS)
def test_what_a_request_cannot_say_is_our_own_error(changes: dict[str, object]) -> None:
    arguments: dict[str, object] = {"host": "push.example", "path": "/ws", "key": KEY}
    with pytest.raises(LocalProtocolError):
        client_request(**(arguments | changes))  # type: ignore[arg-type]


@given(st.binary(max_size=60), st.lists(st.integers(0, 200), max_size=10))
def test_any_answer_at_any_split_gives_a_response_a_fault_or_nothing(noise: bytes, cuts: list[int]) -> None:
    stream = answer_bytes()[:-2] + noise + b"\r\n\r\n"
    whole, split, start = ClientHandshake(KEY), ClientHandshake(KEY), 0
    expected, got = whole.feed(stream), None
    for cut in [*sorted(cuts), len(stream)]:
        if got is None:
            got, start = split.feed(stream[start:cut]), max(start, cut)
    assert got == expected
    assert repr(split.fault) == repr(whole.fault)
