"""The native codec, against PROTOCOL §1, §2 and the vectors of §8."""

import struct

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longwire.errors import LocalProtocolError
from longwire.limits import MAX_NESTING
from longwire.reasons import CloseCode
from longwire.wire import native
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
)

MAX_BODY = 65_536
PROTOCOL_FAULTS = {CloseCode.PROTOCOL_ERROR, CloseCode.TOO_LARGE, CloseCode.UNSUPPORTED}
MESSAGE_ID = bytes.fromhex("0193b5a8c4007a1b8c2d3e4f50617283")
TRACE = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b7")

unhurried = settings(deadline=None)

FIELDS: dict[object, st.SearchStrategy[object]] = {
    str: st.text(max_size=40),
    bytes: st.binary(max_size=80),
    int: st.integers(-(1 << 63), (1 << 64) - 1),
    bool: st.booleans(),
    list[int]: st.lists(st.integers(0, (1 << 64) - 1), max_size=20),
    list[str]: st.lists(st.text(max_size=10), max_size=20),
}


def packets_of(kind: type[AnyPacket]) -> st.SearchStrategy[AnyPacket]:
    return st.builds(kind, **{field.name: FIELDS[field.type] for field in msgspec.structs.fields(kind)})


def received_of(kinds: tuple[type[AnyPacket], ...]) -> st.SearchStrategy[Received]:
    def frame(packet: AnyPacket, correlation: int, wants_receipt: bool, trace: bytes) -> Received:
        flags = FLAG_RECEIPT * wants_receipt + FLAG_TRACE * bool(trace)
        return Received(packet.command, flags, correlation, packet, trace)

    return st.builds(
        frame,
        st.one_of([packets_of(kind) for kind in kinds]),
        st.integers(0, 0xFFFF_FFFF),
        st.booleans(),
        st.just(b"") | st.binary(min_size=24, max_size=24),
    )


every_frame = received_of(tuple(dict.fromkeys(FROM_DEVICE + FROM_NODE)))


def encoded(frame: Received) -> bytes:
    return native.encode(frame.packet, frame.correlation, frame.flags, frame.trace)


def raw(command: int, body: bytes = b"", *, start: int = 0xA710, scheme: int = 0, length: int = -1) -> bytes:
    return struct.pack(">HBBII", start, command, scheme, len(body) if length < 0 else length, 0) + body


def decoded(data: bytes) -> AnyPacket:
    decoder = native.any_decoder(MAX_BODY)
    (frame,) = decoder.feed(data)
    assert decoder.fault is None
    return frame.packet


def fault_of(data: bytes) -> tuple[int, str]:
    decoder = native.any_decoder(MAX_BODY)
    assert decoder.feed(data) == []
    assert decoder.fault is not None
    return decoder.fault.code, decoder.fault.reason


# Vectors

VECTORS = [
    ("a71003000000000000000007", 7, 0, b"", Ping()),
    ("a714030000000018000000074bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b7", 7, 4, TRACE, Ping()),
    ("a7100100000000090000000192a374306ba3642d31", 1, 0, b"", Connect("t0k", "d-1", 60, "", "")),
    (
        "a71002000000001c0000000197a273313ca26e31cf0000019ab697e80000ce00010000ce00015180",
        *(1, 0, b""),
        Connected("s1", 60, "n1", 1764000000000, 0, 65536, 86400),
    ),
    ("a7100500000000010000000390", 3, 0, b"", Renew("")),
    ("a71006000000000a0000000392a36e3377ce00015180", 3, 0, b"", Renewed("n3w", 86400)),
    ("a71007000000000e0000000093cd7530a8647261696e696e67a0", 0, 0, b"", Move(30000, "draining", "")),
    (
        "a7121000000000270000000294c4100193b5a8c4007a1b8c2d3e4f50617283aa6465766963653a642d32a463686174c4026869",
        *(2, 2, b""),
        Send(MESSAGE_ID, "device:d-2", "chat", b"hi", -1, ""),
    ),
    ("a710110000000002000000029100", 2, 0, b"", Sent(0, "", 0)),
    (
        "a7122000000000300000010295c4100193b5a8c4007a1b8c2d3e4f50617283a463686174aa6465766963653a642d31c402"
        "6869cf0000019ab697e801",
        *(258, 2, b""),
        Push(MESSAGE_ID, "chat", "device:d-1", b"hi", 1764000000001, "", ""),
    ),
    ("a71021000000000000000102", 258, 0, b"", Ack([])),
    ("a7102100000000090000010292cd0103ce00011170", 258, 0, b"", Ack([259, 70000])),
    (
        "a71030000000000f0000000993a6737461747573c4027b7dcd2710",
        *(9, 0, b""),
        Request("status", b"{}", 10000),
    ),
    ("a71031000000000f000000099200c40b7b226f6b223a747275657d", 9, 0, b"", Reply(0, b'{"ok":true}', "")),
    ("a710400000000008000000049192a3612f62a163", 4, 0, b"", Subscribe(["a/b", "c"])),
    ("a710410000000004000000049192000f", 4, 0, b"", Subscribed([0, 15])),
    (
        "a7100800000000110000000094cd1004aa74616b656e206f766572c200",
        *(0, 0, b""),
        Close(4100, "taken over", False, 0),
    ),
]


@pytest.mark.parametrize(("frame", "correlation", "flags", "trace", "packet"), VECTORS)
def test_a_vector_of_the_protocol_decodes_to_its_values(
    frame: str, correlation: int, flags: int, trace: bytes, packet: AnyPacket
) -> None:
    expected = Received(packet.command, flags, correlation, packet, trace)
    of_device = type(packet) in FROM_DEVICE
    decoder = (native.device_decoder if of_device else native.node_decoder)(MAX_BODY)
    assert decoder.feed(bytes.fromhex(frame)) == [expected]
    assert decoder.fault is None
    assert native.any_decoder(MAX_BODY).feed(encoded(expected)) == [expected]


# Streams


@unhurried
@given(every_frame)
def test_a_frame_decodes_to_what_was_encoded(frame: Received) -> None:
    decoder = native.any_decoder(MAX_BODY)
    assert decoder.feed(encoded(frame)) == [frame]
    assert decoder.fault is None
    assert decoder.pending_bytes == 0


@unhurried
@given(st.lists(every_frame, max_size=6), st.data())
def test_any_split_gives_the_same_packets(frames: list[Received], data: st.DataObject) -> None:
    stream = b"".join(map(encoded, frames))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    decoder = native.any_decoder(MAX_BODY)
    got: list[Received] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += decoder.feed(stream[start:end])
        assert decoder.pending_bytes <= native.HEADER_BYTES + MAX_BODY
    assert got == frames
    assert decoder.fault is None
    assert decoder.pending_bytes == 0


@unhurried
@given(st.lists(every_frame, min_size=1, max_size=4))
def test_a_stream_byte_by_byte_gives_the_same_packets(frames: list[Received]) -> None:
    decoder = native.any_decoder(MAX_BODY)
    got = [frame for byte in b"".join(map(encoded, frames)) for frame in decoder.feed(bytes((byte,)))]
    assert got == frames
    assert decoder.fault is None


@unhurried
@given(st.lists(every_frame, min_size=1, max_size=4), st.data())
def test_a_truncated_stream_gives_only_its_whole_frames(frames: list[Received], data: st.DataObject) -> None:
    pieces = list(map(encoded, frames))
    stream = b"".join(pieces)
    size = data.draw(st.integers(0, len(stream) - 1))
    whole = 0
    left = size
    while left >= len(pieces[whole]):
        left -= len(pieces[whole])
        whole += 1
    decoder = native.any_decoder(MAX_BODY)
    assert decoder.feed(stream[:size]) == frames[:whole]
    assert decoder.fault is None
    assert decoder.pending_bytes == left


def test_nothing_fed_gives_nothing() -> None:
    decoder = native.device_decoder(MAX_BODY)
    assert decoder.feed(b"") == []
    assert (decoder.pending_bytes, decoder.fault) == (0, None)


def test_a_large_frame_fed_byte_by_byte_is_kept_once_and_decodes() -> None:
    send = Send(MESSAGE_ID, "", "chat", bytes(MAX_BODY - 100))
    stream = native.encode(send, 1)
    decoder = native.device_decoder(MAX_BODY)
    for at, byte in enumerate(stream[:-1], 1):
        assert decoder.feed(bytes((byte,))) == []
        assert decoder.pending_bytes == at
    assert decoder.feed(stream[-1:]) == [Received(Command.SEND, 0, 1, send)]
    assert decoder.pending_bytes == 0


def test_a_frame_of_the_largest_body_is_taken_and_one_more_byte_is_not() -> None:
    empty = len(native.encode(Renew(""), 0)) - native.HEADER_BYTES
    body = native.encode(Renew("x" * 1000), 0)[native.HEADER_BYTES :]
    assert len(body) > empty
    assert len(native.device_decoder(len(body)).feed(raw(Command.RENEW, body))) == 1
    decoder = native.device_decoder(len(body) - 1)
    assert decoder.feed(raw(Command.RENEW, body)) == []
    assert decoder.fault is not None
    assert decoder.fault.reason == f"body of {len(body)} bytes exceeds {len(body) - 1}"


# Faults


@unhurried
@given(st.binary(max_size=200), st.binary(max_size=20))
def test_garbage_never_raises_and_ends_in_a_fault_of_the_protocol(garbage: bytes, more: bytes) -> None:
    for make in (native.device_decoder, native.node_decoder, native.any_decoder):
        decoder = make(MAX_BODY)
        decoder.feed(garbage)
        if len(garbage) >= native.HEADER_BYTES and garbage[0] != native.MAGIC:
            assert decoder.fault is not None
        if decoder.fault is not None:
            assert decoder.fault.code in PROTOCOL_FAULTS
            assert decoder.feed(more) == []


@settings(deadline=None, max_examples=300)
@given(st.lists(every_frame, min_size=1, max_size=3), st.data())
def test_a_mutated_stream_never_raises_and_keeps_the_frames_before_it(
    frames: list[Received], data: st.DataObject
) -> None:
    stream = bytearray(b"".join(map(encoded, frames)))
    at = data.draw(st.integers(0, len(stream) - 1))
    stream[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del stream[at : at + data.draw(st.integers(1, 8))]
    decoder = native.any_decoder(MAX_BODY)
    got = decoder.feed(bytes(stream))
    untouched = 0
    size = 0
    while untouched < len(frames) and size + len(encoded(frames[untouched])) <= at:
        size += len(encoded(frames[untouched]))
        untouched += 1
    assert got[:untouched] == frames[:untouched]
    if decoder.fault is not None:
        assert decoder.fault.code in PROTOCOL_FAULTS
        assert decoder.pending_bytes == 0


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([command.value for command in Command]), st.binary(max_size=60))
def test_a_garbage_body_never_raises(command: int, body: bytes) -> None:
    decoder = native.any_decoder(MAX_BODY)
    got = decoder.feed(raw(command, body))
    assert len(got) == 1 or (decoder.fault is not None and decoder.fault.code == CloseCode.PROTOCOL_ERROR)


def test_a_fault_keeps_the_frames_before_it_and_nothing_is_decoded_after_it() -> None:
    good = native.encode(Ping(), 1)
    decoder = native.device_decoder(MAX_BODY)
    assert [frame.correlation for frame in decoder.feed(good + raw(Command.SEND, b"\xc1") + good)] == [1]
    fault = decoder.fault
    assert fault is not None
    assert decoder.feed(good) == []
    assert decoder.fault is fault
    assert decoder.pending_bytes == 0


HEADER_FAULTS = [
    ("magic", CloseCode.PROTOCOL_ERROR, {"start": 0xA810}, 0),
    ("version", CloseCode.UNSUPPORTED, {"start": 0xA720}, 0),
    ("scheme", CloseCode.UNSUPPORTED, {"scheme": 1}, 0),
    ("flag 1", CloseCode.UNSUPPORTED, {"start": 0x1}, 0),
    ("flag 8", CloseCode.UNSUPPORTED, {"start": 0x8}, 0),
    ("command", CloseCode.PROTOCOL_ERROR, {}, 0xEE),
    ("exceeds", CloseCode.TOO_LARGE, {"length": MAX_BODY + 1}, 0),
]


@pytest.mark.parametrize("first", range(len(HEADER_FAULTS)))
def test_a_header_is_judged_in_the_order_of_the_protocol_before_its_body_comes(first: int) -> None:
    word, code, _, _ = HEADER_FAULTS[first]
    for second in range(first, len(HEADER_FAULTS)):
        start, scheme, length, command = 0xA710, 0, 5, int(Command.PING)
        for _, _, changes, foreign in (HEADER_FAULTS[second], HEADER_FAULTS[first]):
            change = changes.get("start", 0)
            start = start & 0xF | change if change > 0xF else start | change
            scheme = changes.get("scheme", scheme)
            length = changes.get("length", length)
            command = foreign or command
        header = raw(command, start=start, scheme=scheme, length=length)
        assert len(header) == native.HEADER_BYTES
        decoder = native.device_decoder(MAX_BODY)
        assert decoder.feed(header[:-1]) == []
        assert decoder.fault is None
        assert decoder.feed(header[-1:]) == []
        assert decoder.fault is not None
        assert decoder.fault.code == code
        assert word in decoder.fault.reason


@pytest.mark.parametrize("kind", FROM_DEVICE + FROM_NODE)
def test_a_command_is_taken_from_its_own_side_only(kind: type[AnyPacket]) -> None:
    header = raw(kind.command, length=100)
    for make, kinds in ((native.device_decoder, FROM_DEVICE), (native.node_decoder, FROM_NODE)):
        decoder = make(MAX_BODY)
        assert decoder.feed(header) == []
        assert (decoder.fault is None) == (kind in kinds)


def test_every_byte_that_is_no_command_is_refused() -> None:
    known = {command.value for command in Command}
    for command in set(range(256)) - known:
        code, reason = fault_of(raw(command))
        assert code == CloseCode.PROTOCOL_ERROR
        assert f"0x{command:02x}" in reason


def test_every_security_scheme_but_plain_is_refused_by_its_number() -> None:
    for scheme in range(1, 256):
        assert fault_of(raw(Command.PING, scheme=scheme)) == (
            CloseCode.UNSUPPORTED,
            f"security scheme {scheme} is reserved",
        )


def test_the_receipt_flag_where_it_means_nothing_is_ignored() -> None:
    (frame,) = native.device_decoder(MAX_BODY).feed(raw(Command.PING, start=0xA712))
    assert frame.packet == Ping()
    assert frame.wants_receipt


def test_a_trace_context_shorter_than_24_bytes_is_a_fault() -> None:
    assert fault_of(raw(Command.PING, bytes(23), start=0xA714))[0] == CloseCode.PROTOCOL_ERROR
    decoder = native.device_decoder(MAX_BODY)
    (frame,) = decoder.feed(raw(Command.PING, bytes(24), start=0xA714))
    assert frame.trace == bytes(24)


# Bodies

pack = msgspec.msgpack.encode


def test_trailing_fields_left_out_take_their_defaults() -> None:
    assert decoded(raw(Command.CONNECT, pack(["t", "d"]))) == Connect("t", "d", 60, "", "")
    assert decoded(raw(Command.CONNECT, pack(["t", "d", 30]))) == Connect("t", "d", 30, "", "")
    assert decoded(raw(Command.RENEW, pack([]))) == Renew("")
    assert decoded(raw(Command.SENT, pack([0]))) == Sent(0, "", 0)
    assert decoded(raw(Command.REPLY, pack([0, b""]))) == Reply(0, b"", "")
    assert decoded(raw(Command.REQUEST, pack(["m", b""]))) == Request("m", b"", 10_000)
    assert decoded(raw(Command.SEND, pack([MESSAGE_ID, "", "k", b""]))) == Send(MESSAGE_ID, "", "k", b"", -1, "")


def test_a_required_field_left_out_is_a_fault() -> None:
    for kind in dict.fromkeys(FROM_DEVICE + FROM_NODE):
        required = [field for field in msgspec.structs.fields(kind) if field.required]
        if required:
            code, reason = fault_of(raw(kind.command, b"\x90"))
            assert code == CloseCode.PROTOCOL_ERROR
            assert kind.command.name in reason


IGNORED = [
    ("nil", b"\xc0"),
    ("a float", b"\xcb" + bytes(8)),
    ("an empty map", b"\x80"),
    ("a map whose key is nil", b"\x81\xc0\x01"),
    ("a map whose key is a map", b"\x81\x80\x01"),
    ("a map whose key is a list of a map", b"\x81\x91\x80\x01"),
    ("a map with the same key twice", b"\x82\x01\x02\x01\x03"),
    ("ext", b"\xd4\x05\x01"),
    ("a long ext", b"\xc7\x03\x05abc"),
    ("a timestamp", b"\xd6\xff\x00\x00\x00\x01"),
    ("a timestamp out of range", b"\xd7\xff" + b"\xff" * 8),
    ("a timestamp of a wrong size", b"\xc7\x03\xffabc"),
    ("ext that looks like the start of a string", b"\x94\xc7\x01\x05\xa1\xc3\xd4\x05\xa1\xc3"),
    ("an ext of each fixed size", b"\x95" + b"".join(bytes((0xD4 + i, 9)) + bytes(1 << i) for i in range(5))),
    ("long strings and bytes", b"\x92\xda\x00\x03abc\xc5\x00\x02\xff\xff"),
    ("16-bit containers", b"\xdc\x00\x02\xde\x00\x01\x01\x02\xdd\x00\x00\x00\x01\xdf\x00\x00\x00\x00"),
]


@pytest.mark.parametrize("value", [value for _, value in IGNORED], ids=[name for name, _ in IGNORED])
def test_extra_trailing_fields_are_ignored_whatever_they_hold(value: bytes) -> None:
    assert decoded(raw(Command.RENEW, b"\x92\xa1t" + value)) == Renew("t")
    assert decoded(raw(Command.RENEW, b"\xdc\x00\x03\xa1t" + value + b"\x01")) == Renew("t")


@unhurried
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(-9, 9), inner),
        max_leaves=20,
    ),
    st.integers(1, 20),
)
def test_an_ignored_field_of_any_shape_leaves_the_packet_alone(value: object, repeats: int) -> None:
    assert decoded(raw(Command.RENEW, pack(["t", *[value] * repeats]))) == Renew("t")


def nested(levels: int, opening: bytes = b"\x91") -> bytes:
    """A RENEW whose body nests so many levels deep, by an ignored field."""
    return raw(Command.RENEW, b"\x92\xa1t" + opening * (levels - 2) + b"\x90")


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\x01", b"\x81\xa1k", b"\xdc\x00\x01", b"\xdf\0\0\0\x01\xc0"])
def test_nesting_of_32_is_taken_and_of_33_is_a_fault(opening: bytes) -> None:
    assert decoded(nested(MAX_NESTING, opening)) == Renew("t")
    for levels in (MAX_NESTING + 1, 200, 5_000):
        assert fault_of(nested(levels, opening)) == (
            CloseCode.PROTOCOL_ERROR,
            f"body of RENEW: nested deeper than {MAX_NESTING}",
        )


def test_nesting_counts_however_the_array_of_the_body_is_written() -> None:
    for head in (b"\xdc\x00\x02", b"\xdd\x00\x00\x00\x02"):
        assert decoded(raw(Command.RENEW, head + b"\xa1t" + b"\x91" * 30 + b"\x90")) == Renew("t")
        assert fault_of(raw(Command.RENEW, head + b"\xa1t" + b"\x91" * 31 + b"\x90"))[0] == 4009


def test_nesting_within_the_key_of_an_ignored_map_counts_too() -> None:
    def keyed(levels: int) -> bytes:
        return raw(Command.RENEW, b"\x92\xa1t\x81" + b"\x91" * (levels - 3) + b"\x90\x01")

    assert decoded(keyed(MAX_NESTING)) == Renew("t")
    assert fault_of(keyed(MAX_NESTING + 1))[0] == CloseCode.PROTOCOL_ERROR


def test_many_containers_beside_each_other_are_not_nesting() -> None:
    assert decoded(raw(Command.RENEW, pack(["t", [[[]]] * 5_000, [{}] * 5_000]))) == Renew("t")


FAULTY_BODIES = [
    ("empty", Command.RENEW, b""),
    ("not msgpack", Command.RENEW, b"\xc1"),
    ("not msgpack in an ignored field", Command.RENEW, b"\x92\xa0\xc1"),
    ("a map", Command.RENEW, b"\x81\xa5token\xa0"),
    ("nil for the body", Command.RENEW, b"\xc0"),
    ("nil for a field", Command.RENEW, b"\x91\xc0"),
    ("nil for a field with a default", Command.CONNECT, pack(["t", "d", None])),
    ("bytes after the body", Command.RENEW, b"\x91\xa0\x00"),
    ("truncated", Command.RENEW, b"\x91\xa5to"),
    ("bad UTF-8", Command.RENEW, b"\x91\xa1\xff"),
    ("a surrogate in UTF-8", Command.RENEW, b"\x91\xa3\xed\xa0\x80"),
    ("bad UTF-8 in an ignored field", Command.RENEW, b"\x92\xa0\xa1\xff"),
    ("bad UTF-8 in a key of an ignored map", Command.RENEW, b"\x92\xa0\x81\xd9\x01\xff\x01"),
    ("bin for str", Command.RENEW, pack([b"t"])),
    ("str for bin", Command.SEND, pack([MESSAGE_ID, "", "k", "hi"])),
    ("str for the message id", Command.SEND, pack(["0193", "", "k", b""])),
    ("int for str", Command.RENEW, pack([1])),
    ("str for int", Command.CONNECT, pack(["t", "d", "60"])),
    ("float for int", Command.CONNECT, pack(["t", "d", 60.0])),
    ("bool for int", Command.CONNECT, pack(["t", "d", True])),
    ("int for bool", Command.CLOSE, pack([4000, "", 1, 0])),
    ("a list for int", Command.ACK, pack([[259]])),
    ("nil for the handles", Command.ACK, b"\xc0"),
    ("a bool among the handles", Command.ACK, pack([True])),
    ("topics flat", Command.SUBSCRIBE, pack(["a", "b"])),
    ("an array that claims 4 billion items", Command.ACK, b"\xdd\xff\xff\xff\xff\x01"),
    ("an ignored map that claims 4 billion items", Command.RENEW, b"\x92\xa0\xdf\xff\xff\xff\xff\x01"),
    ("an ignored string that claims 4 GB", Command.RENEW, b"\x92\xa0\xdb\xff\xff\xff\xff\x01"),
]


@pytest.mark.parametrize(
    ("command", "body"), [case[1:] for case in FAULTY_BODIES], ids=[case[0] for case in FAULTY_BODIES]
)
def test_a_faulty_body_closes_with_4009(command: Command, body: bytes) -> None:
    code, reason = fault_of(raw(command, body))
    assert code == CloseCode.PROTOCOL_ERROR
    assert reason.startswith(f"body of {command.name}: ")


def test_right_types_with_impossible_values_reach_the_handler() -> None:
    huge = (1 << 64) - 1
    assert decoded(raw(Command.SEND, pack([b"short", "who", "", b"", huge]))) == Send(b"short", "who", "", b"", huge)


def test_a_body_where_none_belongs_is_ignored() -> None:
    assert decoded(raw(Command.PING, b"\x91\x01")) == Ping()


def test_an_ack_of_an_empty_list_is_an_ack_of_its_handle_alone() -> None:
    assert decoded(raw(Command.ACK, b"\x90")) == Ack([])


def test_frames_do_not_share_the_list_of_handles() -> None:
    first, second = native.device_decoder(MAX_BODY).feed(raw(Command.ACK) * 2)
    assert isinstance(first.packet, Ack)
    assert isinstance(second.packet, Ack)
    first.packet.handles.append(1)
    assert second.packet.handles == []


# Our own faults


@pytest.mark.parametrize("correlation", [-1, 1 << 32])
def test_a_correlation_id_over_32_bits_cannot_be_encoded(correlation: int) -> None:
    with pytest.raises(LocalProtocolError, match="32 bits"):
        native.encode(Ping(), correlation)


@pytest.mark.parametrize("size", [1, 23, 25])
def test_a_trace_context_of_another_size_cannot_be_encoded(size: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"{size} bytes is not 24"):
        native.encode(Ping(), trace=bytes(size))


@pytest.mark.parametrize("flags", [1, 4, 8, 16, -1])
def test_flags_that_no_sender_sets_cannot_be_encoded(flags: int) -> None:
    with pytest.raises(LocalProtocolError, match="flags"):
        native.encode(Ping(), 0, flags)


@pytest.mark.parametrize("packet", [Renew("\ud800"), Sent(1 << 64), Ack([1 << 64])])
def test_values_that_msgpack_cannot_say_cannot_be_encoded(packet: AnyPacket) -> None:
    with pytest.raises(LocalProtocolError, match=packet.command.name):
        native.encode(packet)
