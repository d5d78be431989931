"""The JSON sub-protocol, against PROTOCOL §6 and the vectors of §8."""

import base64
import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longwire.errors import LocalProtocolError, RemoteProtocolError
from longwire.limits import MAX_NESTING
from longwire.reasons import CloseCode
from longwire.wire import json_text
from longwire.wire.json_text import Side
from longwire.wire.packets import (
    FLAG_RECEIPT,
    FLAG_TRACE,
    FROM_DEVICE,
    FROM_NODE,
    Ack,
    AnyPacket,
    Close,
    Command,
    Connect,
    Connected,
    Move,
    Ping,
    Pong,
    Push,
    Received,
    Renew,
    Renewed,
    Reply,
    Request,
    Send,
    Sent,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)

MAX_BODY = 65_536
ID = "0193b5a8-c400-7a1b-8c2d-3e4f50617283"
MESSAGE_ID = bytes.fromhex(ID.replace("-", ""))
TRACE = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b7")
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

unhurried = settings(deadline=None)

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)
FIELDS: dict[object, st.SearchStrategy[object]] = {
    str: st.text(max_size=40),
    bytes: st.binary(max_size=80),
    int: INT64,
    bool: st.booleans(),
    list[int]: st.lists(INT64, max_size=20),
    list[str]: st.lists(st.text(max_size=10), max_size=20),
}


def compact(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


# What survives as it is: compact JSON, and bytes that are no JSON.
payloads = JSON.map(compact) | st.binary().map(lambda value: value + b"\x00") | st.just(b"")


def packets_of(kind: type[AnyPacket]) -> st.SearchStrategy[AnyPacket]:
    named = {"message_id": st.binary(min_size=16, max_size=16), "payload": payloads}
    every = msgspec.structs.fields(kind)
    return st.builds(kind, **{field.name: named.get(field.name, FIELDS[field.type]) for field in every})


def received_of(kinds: tuple[type[AnyPacket], ...]) -> st.SearchStrategy[Received]:
    def frame(packet: AnyPacket, correlation: int, wants_receipt: bool, trace: bytes) -> Received:
        flags = FLAG_RECEIPT * wants_receipt + FLAG_TRACE * bool(trace)
        return Received(packet.command, flags, correlation, packet, trace)

    return st.builds(
        frame,
        st.one_of([packets_of(kind) for kind in kinds]),
        st.integers(0, 0xFFFF_FFFF),
        st.booleans(),
        st.just(b"") | st.binary(min_size=24, max_size=24).map(lambda trace: b"\x01" + trace[1:-1] + b"\x01"),
    )


def encoded(frame: Received) -> bytes:
    return json_text.encode(frame.packet, frame.correlation, frame.flags, frame.trace)


def from_device(text: bytes | str) -> Received:
    return json_text.decode(text.encode() if isinstance(text, str) else text, "device", MAX_BODY)


def fault_of(text: bytes | str, accepts: Side = "device") -> str:
    """The reason of the 4009 that the message closes with."""
    with pytest.raises(RemoteProtocolError) as raised:
        json_text.decode(text.encode() if isinstance(text, str) else text, accepts, MAX_BODY)
    assert raised.value.code == CloseCode.PROTOCOL_ERROR
    return raised.value.reason


def code_of(text: bytes) -> int | None:
    """The code that the message closes with, if any; what it raises otherwise, it raises."""
    try:
        json_text.decode(text, "device", MAX_BODY)
    except RemoteProtocolError as fault:
        return fault.code
    return None


def request(payload: bytes | str) -> bytes:
    value = payload.encode() if isinstance(payload, str) else payload
    return b'{"cmd":"REQUEST","method":"m","payload":' + value + b"}"


def payload_of(payload: bytes | str) -> bytes:
    packet = from_device(request(payload)).packet
    assert isinstance(packet, Request)
    return packet.payload


def told(payload: bytes) -> dict[str, object]:
    """The message that says a REPLY with this payload."""
    message: dict[str, object] = json.loads(json_text.encode(Reply(0, payload)))
    return message


# Vectors

VECTOR_SEND = (
    '{"cmd":"SEND","id":2,"receipt":true,"message_id":"0193b5a8-c400-7a1b-8c2d-3e4f50617283","to":"device:d-2",'
    '"kind":"chat","payload":{"x":1}}'
)
VECTOR_PUSH = (
    '{"cmd":"PUSH","id":258,"receipt":true,"message_id":"0193b5a8-c400-7a1b-8c2d-3e4f50617283","kind":"chat",'
    '"sender":"device:d-1","payload":{"x":1},"sent_at_ms":1764000000001,"collapse_key":"","to":""}'
)


def test_the_vector_of_a_send_maps_to_what_the_receiver_gets() -> None:
    sent = from_device(VECTOR_SEND)
    assert sent == Received(Command.SEND, FLAG_RECEIPT, 2, Send(MESSAGE_ID, "device:d-2", "chat", b'{"x":1}', -1, ""))
    assert isinstance(sent.packet, Send)
    push = Push(sent.packet.message_id, sent.packet.kind, "device:d-1", sent.packet.payload, 1764000000001)
    assert json_text.encode(push, 258, FLAG_RECEIPT) == VECTOR_PUSH.encode()
    assert json_text.decode(VECTOR_PUSH.encode(), "node", MAX_BODY) == Received(Command.PUSH, FLAG_RECEIPT, 258, push)


# The other vectors of §8, as this sub-protocol says them.
MESSAGES: list[tuple[str, int, int, bytes, AnyPacket]] = [
    ('{"cmd":"PING","id":7}', 7, 0, b"", Ping()),
    ('{"cmd":"PONG"}', 0, 0, b"", Pong()),
    (f'{{"cmd":"PING","id":7,"trace":"{TRACEPARENT}"}}', 7, FLAG_TRACE, TRACE, Ping()),
    ('{"cmd":"CONNECT","id":1,"token":"t0k","device_id":"d-1"}', 1, 0, b"", Connect("t0k", "d-1", 60, "", "")),
    (
        '{"cmd":"CONNECTED","id":1,"session_id":"s1","heartbeat_s":60,"node_id":"n1",'
        '"server_time_ms":1764000000000,"missed":0,"max_body_bytes":65536,"token_expires_in_s":86400}',
        *(1, 0, b""),
        Connected("s1", 60, "n1", 1764000000000, 0, 65536, 86400),
    ),
    ('{"cmd":"RENEW","id":3}', 3, 0, b"", Renew("")),
    ('{"cmd":"RENEWED","id":3,"token":"n3w","expires_in_s":86400}', 3, 0, b"", Renewed("n3w", 86400)),
    (
        '{"cmd":"MOVE","within_ms":30000,"reason":"draining","address":""}',
        *(0, 0, b""),
        Move(30000, "draining", ""),
    ),
    (
        f'{{"cmd":"SEND","id":2,"message_id":"{ID}","to":"device:d-2","kind":"chat","payload_b64":"aGk="}}',
        *(2, 0, b""),
        Send(MESSAGE_ID, "device:d-2", "chat", b"hi", -1, ""),
    ),
    ('{"cmd":"SENT","id":2,"status":0}', 2, 0, b"", Sent(0, "", 0)),
    ('{"cmd":"ACK","id":258}', 258, 0, b"", Ack([])),
    ('{"cmd":"ACK","id":258,"handles":[259,70000]}', 258, 0, b"", Ack([259, 70000])),
    ('{"cmd":"REQUEST","id":9,"method":"status","payload":{}}', 9, 0, b"", Request("status", b"{}", 10000)),
    ('{"cmd":"REPLY","id":9,"status":0,"payload":{"ok":true}}', 9, 0, b"", Reply(0, b'{"ok":true}', "")),
    ('{"cmd":"SUBSCRIBE","id":4,"topics":["a/b","c"]}', 4, 0, b"", Subscribe(["a/b", "c"])),
    ('{"cmd":"SUBSCRIBED","id":4,"statuses":[0,15]}', 4, 0, b"", Subscribed([0, 15])),
    ('{"cmd":"UNSUBSCRIBE","id":4,"topics":[]}', 4, 0, b"", Unsubscribe([])),
    ('{"cmd":"UNSUBSCRIBED","id":4,"statuses":[]}', 4, 0, b"", Unsubscribed([])),
    (
        '{"cmd":"CLOSE","code":4100,"reason":"taken over","may_reconnect":false,"retry_after_ms":0}',
        *(0, 0, b""),
        Close(4100, "taken over", False, 0),
    ),
]


@pytest.mark.parametrize(("text", "correlation", "flags", "trace", "packet"), MESSAGES)
def test_a_message_decodes_to_its_values_and_encodes_to_the_same(
    text: str, correlation: int, flags: int, trace: bytes, packet: AnyPacket
) -> None:
    accepts: Side = "device" if type(packet) in FROM_DEVICE else "node"
    expected = Received(packet.command, flags, correlation, packet, trace)
    assert json_text.decode(text.encode(), accepts, MAX_BODY) == expected
    written = encoded(expected)
    assert json.loads(text).items() <= json.loads(written).items()
    assert json_text.decode(written, accepts, MAX_BODY) == expected


# Both directions


@unhurried
@given(received_of(FROM_DEVICE))
def test_a_packet_of_a_device_decodes_to_what_was_encoded(frame: Received) -> None:
    assert json_text.decode(encoded(frame), "device", 1 << 20) == frame


@unhurried
@given(received_of(FROM_NODE))
def test_a_packet_of_a_node_decodes_to_what_was_encoded(frame: Received) -> None:
    text = encoded(frame)
    assert json_text.decode(text, "node", 1 << 20) == frame
    assert json.loads(text)["cmd"] == Command(frame.command).name


@pytest.mark.parametrize("kind", dict.fromkeys(FROM_DEVICE + FROM_NODE))
def test_a_command_is_taken_from_its_own_side_only(kind: type[AnyPacket]) -> None:
    text = f'{{"cmd":"{kind.command.name}"}}'
    sides: list[tuple[Side, tuple[type[AnyPacket], ...]]] = [("device", FROM_DEVICE), ("node", FROM_NODE)]
    for accepts, kinds in sides:
        if kind not in kinds:
            assert fault_of(text, accepts) == "message: cmd is unknown or not from this side"
        elif any(field.required for field in msgspec.structs.fields(kind)):
            assert "required field" in fault_of(text, accepts) or "neither payload" in fault_of(text, accepts)
        else:
            assert json_text.decode(text.encode(), accepts, MAX_BODY).packet == kind()


def test_fields_may_come_in_any_order_and_with_whitespace() -> None:
    text = ' { "token" : "t",\r\n\t"cmd" :"RENEW" , "id":4294967295 } '
    assert from_device(text) == Received(Command.RENEW, 0, 0xFFFF_FFFF, Renew("t"))


def test_unknown_fields_are_ignored() -> None:
    text = '{"cmd":"PING","payload":1,"payload_b64":null,"handles":"x","z":{"a":[1e400,null]},"CMD":1}'
    assert from_device(text).packet == Ping()


def test_of_a_field_that_comes_twice_the_last_one_holds() -> None:
    assert from_device('{"cmd":"RENEW","token":"a","token":"b"}').packet == Renew("b")


def test_receipt_false_sets_no_flag() -> None:
    assert from_device('{"cmd":"PING","receipt":false}').flags == 0


# Faults


def test_a_message_longer_than_allowed_is_too_large_before_it_is_read() -> None:
    text = b'{"cmd":"PING"}'
    assert json_text.decode(text, "device", len(text)).packet == Ping()
    for longer in (text + b" ", b"\xff" * 100):
        with pytest.raises(RemoteProtocolError, match=f"of {len(longer)} bytes exceeds 14") as raised:
            json_text.decode(longer, "device", len(text))
        assert raised.value.code == CloseCode.TOO_LARGE


FAULTY = [
    "",
    " ",
    "null",
    "[]",
    '"PING"',
    "{}",
    '{"cmd":null}',
    '{"cmd":3}',
    '{"cmd":"ping"}',
    '{"cmd":"NOPE"}',
    '{"cmd":["PING"]}',
    '{"id":1}',
    '{"cmd":"PING"',
    '{"cmd":"PING"} {}',
    '{"cmd":"PING",}',
    "{'cmd':'PING'}",
    '{cmd:"PING"}',
    '\ufeff{"cmd":"PING"}',
    '{"cmd":"PING","z":NaN}',
    '{"cmd":"PING","z":-Infinity}',
    '{"cmd":"PING","z":01}',
    '{"cmd":"PING","z":+1}',
    '{"cmd":"PING","z":1.}',
    '{"cmd":"PING","z":"a\nb"}',
    '{"cmd":"PING","z":"\\x41"}',
    '{"cmd":"PING","z":"\\ud800"}',
    '{"cmd":"PING","z":"\\udc00 low first"}',
    '{"cmd":"PING","id":-1}',
    '{"cmd":"PING","id":4294967296}',
    '{"cmd":"PING","id":1.0}',
    '{"cmd":"PING","id":"1"}',
    '{"cmd":"PING","id":true}',
    '{"cmd":"PING","id":null}',
    '{"cmd":"PING","receipt":1}',
    '{"cmd":"PING","receipt":"true"}',
    '{"cmd":"PING","receipt":null}',
    '{"cmd":"PING","trace":null}',
    '{"cmd":"PING","trace":7}',
    '{"cmd":"RENEW","token":null}',
    '{"cmd":"RENEW","token":1}',
    '{"cmd":"RENEW","token":"\\ud83d"}',
    '{"cmd":"CONNECT","token":"t"}',
    '{"cmd":"CONNECT","token":"t","device_id":"d","heartbeat_s":"60"}',
    '{"cmd":"CONNECT","token":"t","device_id":"d","heartbeat_s":60.0}',
    '{"cmd":"CONNECT","token":"t","device_id":"d","heartbeat_s":1e2}',
    '{"cmd":"CONNECT","token":"t","device_id":"d","heartbeat_s":9223372036854775808}',
    '{"cmd":"CONNECT","token":"t","device_id":"d","heartbeat_s":-12345678901234567890123}',
    '{"cmd":"CONNECT","token":"t","device_id":"d","heartbeat_s":' + "9" * 10_000 + "}",
    '{"cmd":"CLOSE","code":4000,"reason":"","may_reconnect":0,"retry_after_ms":0}',
    '{"cmd":"ACK","handles":null}',
    '{"cmd":"ACK","handles":259}',
    '{"cmd":"ACK","handles":["259"]}',
    '{"cmd":"ACK","handles":[259,null]}',
    '{"cmd":"ACK","handles":[true]}',
    '{"cmd":"ACK","handles":[18446744073709551616]}',
    '{"cmd":"SUBSCRIBE","topics":"a"}',
    '{"cmd":"SUBSCRIBE","topics":[1]}',
    '{"cmd":"SEND","message_id":null,"to":"","kind":"k","payload":1}',
    '{"cmd":"SEND","message_id":7,"to":"","kind":"k","payload":1}',
    '{"cmd":"SEND","to":"","kind":"k","payload":1}',
]


@pytest.mark.parametrize("text", FAULTY, ids=lambda text: repr(text[:60]))
def test_a_faulty_message_closes_with_4009(text: str) -> None:
    assert fault_of(text).startswith("message: ")


@pytest.mark.parametrize("octets", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xc3"])
def test_bad_utf8_anywhere_is_a_fault(octets: bytes) -> None:
    for text in (b'{"cmd":"RENEW","token":"%s"}', b'{"cmd":"PING","z":"%s"}', b'{"cmd":"PING","%s":1}', b"%s"):
        assert fault_of(text % octets) == "message: bad UTF-8"
    assert fault_of(request(b'"' + octets + b'"')) == "message: bad UTF-8"


def test_a_fault_never_repeats_what_the_peer_said() -> None:
    for text in ('{"cmd":"s3cret"}', '{"cmd":"RENEW","token":["s3cret"]}', '{"cmd":"PING","s3cret":tru}'):
        assert "s3cret" not in fault_of(text)


@unhurried
@given(st.binary(max_size=100) | JSON.map(compact))
def test_garbage_never_raises_anything_but_a_fault(garbage: bytes) -> None:
    for text in (garbage, request(garbage), b'{"cmd":"PING","z":' + garbage + b"}"):
        assert code_of(text) in (None, CloseCode.PROTOCOL_ERROR)


@settings(deadline=None, max_examples=300)
@given(received_of(FROM_DEVICE), st.data())
def test_a_mutated_message_never_raises_anything_but_a_fault(frame: Received, data: st.DataObject) -> None:
    text = bytearray(encoded(frame))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=2) | st.sampled_from([b'"', b"["]))
    assert code_of(bytes(text)) in (None, CloseCode.PROTOCOL_ERROR)


# Nesting


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"a":1,"b":', "}]")])
def test_an_ignored_field_may_nest_to_level_32_of_the_message(opening: str, closing: str) -> None:
    step = opening.count("[") + opening.count("{")

    def message(levels: int) -> str:
        inside = (levels - 1) // step
        rest = (levels - 1) % step
        return '{"cmd":"PING","z":' + "[" * rest + opening * inside + "0" + closing * inside + "]" * rest + "}"

    assert from_device(message(MAX_NESTING)).packet == Ping()
    for levels in (MAX_NESTING + 1, MAX_NESTING + 2, 200, 5_000):
        assert fault_of(message(levels)) == "message: nested deeper than 32"


def test_a_payload_nests_32_deep_by_itself() -> None:
    def deep(levels: int) -> str:
        return "[" * levels + "]" * levels

    assert payload_of(deep(MAX_NESTING)) == deep(MAX_NESTING).encode()
    for levels in (MAX_NESTING + 1, 200, 5_000):
        assert fault_of(request(deep(levels))) == "message: nested deeper than 32"
    # Beside such a payload an ignored field has no more room than before; a field of that name may be unknown.
    rest = ',"z":%s,"cmd":"REPLY","status":0}'
    assert from_device('{"payload":' + deep(32) + rest % deep(31)).packet == Reply(0, deep(32).encode())
    assert fault_of('{"payload":' + deep(32) + rest % deep(32)) == "message: nested deeper than 32"
    assert fault_of('{"cmd":"PING","payload":' + deep(32) + "}") == "message: nested deeper than 32"


def test_many_containers_beside_each_other_and_brackets_in_strings_are_not_nesting() -> None:
    wide = "[" + "[[]]," * 5_000 + '"' + '[{\\"' * 100 + '\\\\"]'
    assert payload_of(wide) == wide.encode()
    assert json.loads(json_text.encode(Reply(0, wide.encode())))["payload"] == json.loads(wide)


def test_escaped_quotes_by_the_thousand_take_no_time_worth_telling() -> None:
    tail = '\\"' * 30_000
    assert fault_of('{"cmd":"PING","z":[' + "[" * 40 + '"' + tail)
    assert payload_of('"' + tail + '"') == ('"' + tail + '"').encode()


# Payloads


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("null", "null"),
        (" true ", "true"),
        ('{"x": 1}', '{"x":1}'),
        ('\r\n{ "a" : [ 1 ,\t2 ] }\n', '{"a":[1,2]}'),
        ('" a  b "', '" a  b "'),
        ("1.0", "1.0"),
        ("-0", "-0"),
        ("-0.0", "-0.0"),
        ("1E+5", "1E+5"),
        ("1e400", "1e400"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("12345678901234567890123", "12345678901234567890123"),
        ("9" * 10_000, "9" * 10_000),
        ('{"a":1,"a":2}', '{"a":1,"a":2}'),
        ('"\\u00e9\\/\\ud83d\\ude00"', '"\\u00e9\\/\\ud83d\\ude00"'),
        ('"é😀\u2028"', '"é😀\u2028"'),
        ('{"":{}}', '{"":{}}'),
    ],
    ids=lambda text: repr(text[:24]),
)
def test_a_payload_travels_as_its_compact_text_and_loses_nothing(written: str, kept: str) -> None:
    assert payload_of(written) == kept.encode()
    text = json_text.encode(Reply(0, written.encode()))
    assert f'"payload":{kept}'.encode() in text
    assert json_text.decode(text, "node", MAX_BODY).packet == Reply(0, kept.encode())


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"hi",
        b"\x00",
        b"\xff\xfe",
        b"NaN",
        b"-Infinity",
        b"01",
        b"1.",
        b".5",
        b"[1,]",
        b'{"a":1',
        b"{} {}",
        b"// c\n1",
        b"'a'",
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b'"a\nb"',
        b'"\\ud800"',
        b"\xef\xbb\xbf1",
        b"[" * 33 + b"]" * 33,
        b"[" * 5_000 + b"]" * 5_000,
    ],
    ids=lambda payload: repr(payload[:24]),
)
def test_bytes_that_are_no_strict_json_go_as_base64(payload: bytes) -> None:
    message = told(payload)
    assert "payload" not in message
    assert message["payload_b64"] == base64.b64encode(payload).decode()
    assert json_text.decode(json_text.encode(Reply(0, payload)), "node", MAX_BODY).packet == Reply(0, payload)


def is_strict_json(payload: bytes) -> bool:
    """What the standard library says, told to be strict."""

    def refuse(constant: str) -> object:
        raise ValueError(constant)

    try:
        json.dumps(json.loads(payload.decode(), parse_constant=refuse), ensure_ascii=False).encode()
    except ValueError:
        return False
    return True


@settings(deadline=None, max_examples=500)
@given(
    st.text(alphabet='[]{}",:.-+eE0123456789 \n\\/udabcftrulsnINé\x00', max_size=24).map(str.encode)
    | st.builds(
        lambda text, at, junk: text[: at % (len(text) + 1)] + junk + text[at % (len(text) + 1) :],
        JSON.map(compact) | JSON.map(lambda value: json.dumps(value, indent=2).encode()),
        st.integers(0, 60),
        st.sampled_from([b"", b"", b'"', b"\\", b"\\ud800", b"\\u0041", b" ", b"\xff", b"\x1f", b"0", b"-", b","]),
    )
)
def test_a_payload_is_embedded_exactly_where_it_is_strict_json(payload: bytes) -> None:
    message = told(payload)
    assert ("payload" in message) == is_strict_json(payload)
    if "payload" in message:
        assert message["payload"] == json.loads(payload)
        assert (
            payload_of(payload)
            == json_text.encode(Reply(0, payload)).split(b'"payload":', 1)[1].rsplit(b',"detail"', 1)[0]
        )
    else:
        assert base64.b64decode(str(message["payload_b64"])) == payload


def test_a_payload_is_given_once() -> None:
    both = '{"cmd":"REQUEST","method":"m","payload":1,"payload_b64":"aGk="}'
    assert fault_of(both) == "message: both payload and payload_b64"
    assert fault_of(both.replace(":1,", ":null,")) == "message: both payload and payload_b64"
    assert fault_of('{"cmd":"REQUEST","method":"m"}') == "message: neither payload nor payload_b64"


@pytest.mark.parametrize("text", ['"aGk"', '"aGk=="', '"aG k="', '"-_8="', '"===="', '"a"', '"é"', "null", "[104]"])
def test_payload_b64_that_is_not_padded_base64_is_a_fault(text: str) -> None:
    fault_of('{"cmd":"REQUEST","method":"m","payload_b64":' + text + "}")


# Message ids and traces


@pytest.mark.parametrize("text", ["", "x", ID[:-1], ID.replace("-", ""), "{" + ID + "}", "urn:uuid:" + ID, "é" * 36])
def test_a_message_id_that_is_no_uuid_reaches_the_handler_as_an_impossible_value(text: str) -> None:
    message = {"cmd": "SEND", "id": 5, "message_id": text, "to": "", "kind": "k", "payload": 1}
    assert from_device(json.dumps(message)) == Received(Command.SEND, 0, 5, Send(b"", "", "k", b"1"))


def test_other_right_types_with_impossible_values_reach_the_handler() -> None:
    text = f'{{"cmd":"SEND","message_id":"{ID}","to":"who","kind":"","payload":1,"ttl_s":-9223372036854775808}}'
    assert from_device(text).packet == Send(MESSAGE_ID, "who", "", b"1", -(1 << 63))


@pytest.mark.parametrize(
    "traceparent",
    [
        TRACEPARENT,
        TRACEPARENT[:-2] + "00",
        "01" + TRACEPARENT[2:],
        "cc" + TRACEPARENT[2:] + "-what-comes-later",
    ],
)
def test_a_traceparent_of_this_or_a_later_version_is_taken(traceparent: str) -> None:
    frame = from_device(json.dumps({"cmd": "PING", "trace": traceparent}))
    assert (frame.flags, frame.trace) == (FLAG_TRACE, TRACE)


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "00",
        TRACEPARENT[:-1],
        TRACEPARENT + "0",
        TRACEPARENT + "-more",
        TRACEPARENT + "\n",
        TRACEPARENT.upper(),
        "ff" + TRACEPARENT[2:],
        "cc" + TRACEPARENT[2:] + "more",
        TRACEPARENT.replace("-", "_"),
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
        "00-" + "٣" * 32 + "-00f067aa0ba902b7-01",
    ],
)
def test_a_malformed_traceparent_is_dropped_and_the_message_goes_on(traceparent: str) -> None:
    frame = from_device(json.dumps({"cmd": "PING", "id": 3, "trace": traceparent}))
    assert frame == Received(Command.PING, 0, 3, Ping())


# Our own faults


@pytest.mark.parametrize("correlation", [-1, 1 << 32])
def test_a_correlation_id_over_32_bits_cannot_be_encoded(correlation: int) -> None:
    with pytest.raises(LocalProtocolError, match="32 bits"):
        json_text.encode(Ping(), correlation)


@pytest.mark.parametrize("flags", [1, 4, 8, 16, -1])
def test_flags_that_json_has_no_place_for_cannot_be_encoded(flags: int) -> None:
    with pytest.raises(LocalProtocolError, match="flags"):
        json_text.encode(Ping(), 0, flags)


@pytest.mark.parametrize("size", [1, 23, 25])
def test_a_trace_context_of_another_size_cannot_be_encoded(size: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"{size} bytes is not 24"):
        json_text.encode(Ping(), trace=bytes(size))


def test_a_message_id_of_another_size_cannot_be_encoded() -> None:
    with pytest.raises(LocalProtocolError, match="15 bytes is not 16"):
        json_text.encode(Send(bytes(15), "", "k", b""))


def test_text_that_utf8_cannot_say_cannot_be_encoded() -> None:
    with pytest.raises(LocalProtocolError, match="RENEW"):
        json_text.encode(Renew("\ud800"))
