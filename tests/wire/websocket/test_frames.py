"""The frame codec against RFC 6455 §5 to §8: verdicts, limits, and that no split of the stream matters."""

import codecs
import gc
import sys
import tracemalloc
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.utils import apply_mask as apply_mask_in_python

from longwire.errors import LocalProtocolError
from longwire.wire.websocket import frames
from longwire.wire.websocket.frames import (
    Decoder,
    Event,
    Opcode,
    encode,
    encode_close,
    is_close_code,
    parse_close,
)

MASK = b"\x37\xfa\x21\x3d"
MAX = 1_000


def server(max_message_bytes: int = MAX, *, streams_binary: bool = False) -> Decoder:
    return Decoder(is_server=True, max_message_bytes=max_message_bytes, streams_binary=streams_binary)


def client(max_message_bytes: int = MAX) -> Decoder:
    return Decoder(is_server=False, max_message_bytes=max_message_bytes)


def masked(opcode: int, payload: bytes = b"", *, final: bool = True) -> bytes:
    return encode(opcode, payload, MASK, final=final)


def feed_in_pieces(decoder: Decoder, stream: bytes, cuts: list[int]) -> list[Event]:
    borders = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    events: list[Event] = []
    for start, stop in pairwise(borders):
        events += decoder.feed(stream[start:stop])
    return events


def fault_code(stream: bytes, decoder: Decoder) -> int | None:
    decoder.feed(stream)
    return decoder.fault.code if decoder.fault else None


# The examples of RFC 6455 §5.7.
RFC_EXAMPLES = [
    ("810548656c6c6f", False, [(1, b"Hello")]),
    ("818537fa213d7f9f4d5158", True, [(1, b"Hello")]),
    ("010348656c80026c6f", False, [(1, b"Hello")]),
    ("890548656c6c6f", False, [(9, b"Hello")]),
    ("8a8537fa213d7f9f4d5158", True, [(10, b"Hello")]),
]


@pytest.mark.parametrize(("stream", "is_server", "events"), RFC_EXAMPLES)
def test_the_examples_of_the_rfc_decode_as_it_says(stream: str, is_server: bool, events: list[Event]) -> None:
    decoder = Decoder(is_server=is_server, max_message_bytes=MAX)
    assert decoder.feed(bytes.fromhex(stream)) == events
    assert decoder.fault is None
    assert not decoder.is_over


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 70_000])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
def test_each_form_of_the_length_goes_out_and_comes_back(opcode: Opcode, length: int) -> None:
    payload = b"x" * length
    header = 2 if length < 126 else 4 if length < 65_536 else 10
    assert len(encode(opcode, payload)) == header + length
    assert client(length).feed(encode(opcode, payload)) == [(opcode, payload)]
    assert server(length).feed(encode(opcode, payload, MASK)) == [(opcode, payload)]


def test_a_length_in_a_longer_form_than_needed_is_read() -> None:
    decoder = client()
    assert decoder.feed(b"\x82\x7e\x00\x01a" + b"\x82\x7f" + b"\x00" * 7 + b"\x01b") == [(2, b"a"), (2, b"b")]
    assert decoder.fault is None


def test_control_frames_between_fragments_come_in_their_place() -> None:
    stream = (
        masked(1, b"a", final=False)
        + masked(9, b"ping")
        + masked(0, b"b", final=False)
        + masked(10, b"pong")
        + masked(0, b"c")
        + masked(2, b"d")
    )
    assert server().feed(stream) == [(9, b"ping"), (10, b"pong"), (1, b"abc"), (2, b"d")]


def test_nothing_is_decoded_after_a_close() -> None:
    decoder = server()
    stream = masked(2, b"a") + encode_close(1000, "bye", MASK) + masked(2, b"b") + b"\xff\xff"
    events = decoder.feed(stream)
    assert [opcode for opcode, _ in events] == [2, 8]
    assert parse_close(events[1][1]) == (1000, "bye")
    assert decoder.is_over
    assert decoder.feed(masked(2, b"c")) == []
    assert decoder.fault is None


def test_nothing_is_decoded_after_a_fault_and_what_came_before_it_is_given() -> None:
    decoder = server()
    assert decoder.feed(masked(2, b"a") + b"\xff\xff" + masked(2, b"b")) == [(2, b"a")]
    assert decoder.fault is not None
    assert decoder.is_over
    assert decoder.feed(masked(2, b"c")) == []


ILLEGAL_FIRST_BYTES = [
    *(0x80 | bits | 1 for bits in (0x10, 0x20, 0x40, 0x70)),  # reserved bits
    *(0x80 | opcode for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),  # reserved opcodes
    *(opcode for opcode in (8, 9, 10)),  # fragmented control frames
]


@pytest.mark.parametrize("first", ILLEGAL_FIRST_BYTES)
def test_reserved_bits_and_opcodes_and_fragmented_control_frames_are_1002(first: int) -> None:
    assert fault_code(bytes([first, 0x80]) + MASK, server()) == 1002
    assert fault_code(bytes([first, 0x00]), client()) == 1002


def test_an_unmasked_frame_of_a_client_is_1002() -> None:
    assert fault_code(b"\x82\x00", server()) == 1002


def test_a_masked_frame_of_a_server_is_1002() -> None:
    assert fault_code(b"\x82\x80", client()) == 1002


def test_a_continuation_of_nothing_is_1002() -> None:
    assert fault_code(masked(0, b"a"), server()) == 1002
    assert fault_code(masked(1, b"a") + masked(0, b"b"), server()) == 1002


@pytest.mark.parametrize("opcode", [1, 2])
def test_a_new_message_inside_a_fragmented_one_is_1002(opcode: int) -> None:
    assert fault_code(masked(1, b"", final=False) + masked(opcode, b"b"), server()) == 1002
    assert fault_code(masked(2, b"", final=False) + masked(opcode, b"b"), server()) == 1002


@pytest.mark.parametrize("opcode", [8, 9, 10])
def test_a_control_frame_above_125_bytes_is_1002_on_its_second_byte(opcode: int) -> None:
    assert fault_code(bytes([0x80 | opcode, 0xFE]), server()) == 1002
    assert client().feed(bytes([0x80 | opcode, 125]) + b"\x03\xe8" + b"x" * 123) != []


def test_a_64_bit_length_with_its_highest_bit_set_is_1002() -> None:
    assert fault_code(b"\x82\xff\x80" + b"\x00" * 7, server()) == 1002
    assert fault_code(b"\x82\xff\x80" + b"\x00" * 7, server(streams_binary=True)) == 1002


@pytest.mark.parametrize("opcode", [1, 2])
def test_a_message_at_the_limit_passes_and_one_byte_more_is_1009(opcode: int) -> None:
    assert server(10).feed(masked(opcode, b"x" * 10)) == [(opcode, b"x" * 10)]
    assert fault_code(masked(opcode, b"x" * 11), server(10)) == 1009


def test_the_limit_is_judged_on_the_header_before_mask_and_payload() -> None:
    decoder = server(10)
    assert decoder.feed(b"\x82\x8b") == []
    assert decoder.fault is not None
    assert (decoder.fault.code, str(decoder.fault)) == (1009, "message of 11 bytes exceeds 10")
    assert fault_code(b"\x82\xff" + b"\x7f" * 8, server(10)) == 1009


def test_the_limit_holds_over_the_fragments_of_a_message() -> None:
    decoder = server(10)
    assert decoder.feed(masked(1, b"x" * 6, final=False) + masked(0, b"x" * 4, final=False)) == []
    assert decoder.fault is None
    assert fault_code(masked(0, b"x"), decoder) == 1009


def test_control_frames_are_not_counted_into_the_limit() -> None:
    decoder = server(3)
    stream = masked(1, b"abc", final=False) + masked(9, b"x" * 125) + masked(0)
    assert decoder.feed(stream) == [(9, b"x" * 125), (1, b"abc")]
    assert server(0).feed(masked(9, b"x")) == [(9, b"x")]


INVALID_TEXTS = [
    b"\xff",
    b"\x80",
    b"\xc0\xaf",  # overlong
    b"\xed\xa0\x80",  # surrogate
    b"\xf4\x90\x80\x80",  # above U+10FFFF
    b"\xce\xba\xe1\xbd",  # cut in a character
    b"ok\xf0\x9f\x98",
]


@pytest.mark.parametrize("text", INVALID_TEXTS)
def test_text_that_is_not_utf8_is_1007_however_it_is_cut(text: bytes) -> None:
    assert fault_code(masked(1, text), server()) == 1007
    for cut in range(len(text) + 1):
        fragments = masked(1, text[:cut], final=False) + masked(0, text[cut:])
        assert fault_code(fragments, server()) == 1007
    decoder = server()
    assert feed_in_pieces(decoder, masked(1, text), list(range(100))) == []
    assert decoder.fault is not None
    assert decoder.fault.code == 1007


@pytest.mark.parametrize("prefix", [b"\xff", b"a\x80", b"\xf4\x90", b"\xc1", b"\xf8"])
def test_invalid_text_fails_on_the_first_impossible_byte(prefix: bytes) -> None:
    stream = masked(1, prefix + b"rest of the text")
    decoder = server()
    for at in range(6 + len(prefix)):
        assert decoder.fault is None
        decoder.feed(stream[at : at + 1])
    assert decoder.fault is not None
    assert decoder.fault.code == 1007


def test_a_character_may_be_cut_by_frames_and_by_feeds() -> None:
    text = "κόσμε 😀".encode()
    stream = b"".join(masked(1 if at == 0 else 0, text[at : at + 1], final=False) for at in range(len(text)))
    decoder = server()
    assert feed_in_pieces(decoder, stream + masked(0), list(range(len(stream)))) == [(1, text)]
    assert decoder.fault is None


def test_binary_need_not_be_utf8() -> None:
    assert server().feed(masked(2, b"\xff")) == [(2, b"\xff")]


VALID_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999]
INVALID_CODES = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535]


@pytest.mark.parametrize("code", VALID_CODES)
def test_a_code_that_may_stand_in_a_close_goes_out_and_comes_back(code: int) -> None:
    ((opcode, payload),) = server().feed(encode_close(code, "why", MASK))
    assert (opcode, parse_close(payload)) == (8, (code, "why"))


@pytest.mark.parametrize("code", INVALID_CODES)
def test_a_code_that_may_not_stand_in_a_close_is_1002_and_is_never_written(code: int) -> None:
    assert not is_close_code(code)
    assert fault_code(encode(8, code.to_bytes(2), MASK), server()) == 1002
    with pytest.raises(LocalProtocolError):
        encode_close(code, "why")


def test_a_close_may_be_empty_and_has_then_the_code_1005() -> None:
    ((opcode, payload),) = server().feed(masked(8))
    assert (opcode, parse_close(payload)) == (8, (1005, ""))
    assert encode_close(1005, "") == b"\x88\x00"


def test_a_close_of_one_byte_is_1002() -> None:
    decoder = server()
    assert fault_code(masked(8, b"\x03"), decoder) == 1002
    assert str(decoder.fault) == "close frame with half a code"


def test_a_close_with_a_reason_that_is_not_utf8_is_1007() -> None:
    assert fault_code(masked(8, b"\x03\xe8\xff"), server()) == 1007


@given(st.text(max_size=200), st.sampled_from(VALID_CODES))
def test_a_reason_is_cut_on_a_character_and_stays_a_prefix(reason: str, code: int) -> None:
    ((_, payload),) = client().feed(encode_close(code, reason))
    got_code, got_reason = parse_close(payload)
    assert got_code == code
    assert reason.startswith(got_reason)
    assert len(got_reason.encode()) <= 123
    if got_reason != reason:
        assert len(reason[: len(got_reason) + 1].encode()) > 123


def test_a_reason_that_utf8_cannot_say_does_not_stop_a_close() -> None:
    ((_, payload),) = client().feed(encode_close(1011, "bad \ud800 name"))
    assert parse_close(payload) == (1011, "bad ? name")


def test_what_no_frame_can_say_is_our_own_error() -> None:
    for opcode in (3, 7, 11, 16, -1, 128):
        with pytest.raises(LocalProtocolError, match="opcode"):
            encode(opcode, b"")
    with pytest.raises(LocalProtocolError, match="126 bytes exceeds 125"):
        encode(Opcode.PING, b"x" * 126)
    with pytest.raises(LocalProtocolError, match="fragmented"):
        encode(Opcode.CLOSE, b"", final=False)
    for mask in (b"", b"abc", b"abcde"):
        with pytest.raises(LocalProtocolError, match="is not 4"):
            encode(Opcode.TEXT, b"hello", mask)


@given(st.binary(max_size=100), st.binary(min_size=4, max_size=4))
def test_a_frame_is_masked_as_the_library_masks_in_python(data: bytes, mask: bytes) -> None:
    assert encode(2, data, mask).endswith(mask + apply_mask_in_python(data, mask))


# Streaming


def test_streamed_binary_comes_as_it_arrives_and_is_not_kept() -> None:
    decoder = server(5, streams_binary=True)
    stream = masked(2, b"abcdef", final=False)
    assert decoder.feed(stream[:7]) == [(2, b"a")]
    assert decoder.feed(stream[7:10]) == [(2, b"bcd")]
    assert decoder.feed(stream[10:] + masked(9, b"?") + masked(0, b"ghi")) == [
        (2, b"ef"),
        (9, b"?"),
        (2, b"ghi"),
    ]
    assert decoder.fault is None


def test_streamed_binary_has_no_empty_chunks() -> None:
    decoder = server(streams_binary=True)
    stream = masked(2) + masked(2, b"", final=False) + masked(0, b"", final=False) + masked(0) + masked(9)
    assert decoder.feed(stream) == [(9, b"")]
    assert decoder.feed(masked(2, b"a")[:6]) == []


def test_text_is_still_whole_and_bounded_while_binary_streams() -> None:
    decoder = server(5, streams_binary=True)
    assert decoder.feed(masked(2, b"x" * 100) + masked(1, b"ab", final=False) + masked(0, b"cd")) == [
        (2, b"x" * 100),
        (1, b"abcd"),
    ]
    assert fault_code(masked(1, b"abcdef"), decoder) == 1009


def test_streamed_binary_of_any_length_takes_no_memory() -> None:
    decoder = server(10, streams_binary=True)
    decoder.feed(b"\x82\xff" + (1 << 62).to_bytes(8) + MASK)
    chunk = b"x" * 65_536
    tracemalloc.start()
    try:
        decoder.feed(chunk)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(50):
            decoder.feed(chunk)
        assert tracemalloc.get_traced_memory()[0] - before < 1_000
    finally:
        tracemalloc.stop()


# Any stream, any split

controls = st.tuples(st.sampled_from([9, 10]), st.binary(max_size=125))
payloads = st.one_of(
    st.tuples(st.just(1), st.text(max_size=60).map(str.encode)),
    st.tuples(st.just(2), st.binary(max_size=200)),
)
cut_lists = st.lists(st.integers(min_value=0, max_value=10_000), max_size=40)


@st.composite
def conversations(draw: st.DrawFn) -> tuple[list[Event], list[tuple[int, bytes, bool]]]:
    """Messages as events, and as frames: fragmented anywhere, control frames between the fragments."""
    events: list[Event] = []
    frames: list[tuple[int, bytes, bool]] = []
    for opcode, payload in draw(st.lists(st.one_of(payloads, controls), max_size=6)):
        if opcode >= 8:
            events.append((opcode, payload))
            frames.append((opcode, payload, True))
            continue
        cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
        pieces = [payload[start:stop] for start, stop in pairwise([0, *cuts, len(payload)])]
        for number, piece in enumerate(pieces):
            frames.append((opcode if number == 0 else 0, piece, number == len(pieces) - 1))
            if number < len(pieces) - 1 and draw(st.booleans()):
                control = draw(controls)
                events.append(control)
                frames.append((*control, True))
        events.append((opcode, payload))
    return events, frames


def join(frames: list[tuple[int, bytes, bool]], mask: bytes | None) -> bytes:
    return b"".join(encode(opcode, payload, mask, final=final) for opcode, payload, final in frames)


@given(conversations(), cut_lists, st.booleans(), st.binary(min_size=4, max_size=4))
def test_what_is_encoded_is_what_comes_out_in_both_directions_at_any_split(
    conversation: tuple[list[Event], list[tuple[int, bytes, bool]]],
    cuts: list[int],
    is_server: bool,
    mask: bytes,
) -> None:
    events, frames = conversation
    decoder = Decoder(is_server=is_server, max_message_bytes=MAX)
    assert feed_in_pieces(decoder, join(frames, mask if is_server else None), cuts) == events
    assert decoder.fault is None


@given(conversations(), cut_lists)
def test_streaming_gives_the_same_bytes_at_any_split(
    conversation: tuple[list[Event], list[tuple[int, bytes, bool]]], cuts: list[int]
) -> None:
    events, frames = conversation
    decoder = server(streams_binary=True)
    got = feed_in_pieces(decoder, join(frames, MASK), cuts)
    assert decoder.fault is None
    assert all(payload for opcode, payload in got if opcode == 2)
    sent = b"".join(payload for opcode, payload in events if opcode == 2)
    assert b"".join(payload for opcode, payload in got if opcode == 2) == sent
    assert [event for event in got if event[0] != 2] == [event for event in events if event[0] != 2]


@given(conversations(), st.integers(min_value=0, max_value=10_000))
def test_any_truncation_gives_a_prefix_and_no_fault(
    conversation: tuple[list[Event], list[tuple[int, bytes, bool]]], cut: int
) -> None:
    events, frames = conversation
    stream = join(frames, MASK)
    decoder = server()
    got = decoder.feed(stream[: cut % (len(stream) + 1)])
    assert got == events[: len(got)]
    assert decoder.fault is None


# Bytes that look like frames reach further into the decoder than random ones.
frame_like = st.one_of(
    st.builds(
        lambda first, length, rest: bytes([first, length]) + rest,
        st.sampled_from([0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8A, 0x83, 0xC1]),
        st.sampled_from([0x00, 0x01, 0x05, 0x7D, 0x7E, 0x7F, 0x80, 0x81, 0x82, 0x85, 0xFD, 0xFE, 0xFF]),
        st.binary(max_size=20),
    ),
    st.builds(masked, st.sampled_from(list(Opcode)), st.binary(max_size=12)),
    st.builds(
        lambda opcode, payload: masked(opcode, payload, final=False),
        st.sampled_from([0, 1, 2]),
        st.one_of(st.binary(max_size=12), st.sampled_from(INVALID_TEXTS)),
    ),
)
garbage = st.one_of(st.binary(max_size=300), st.lists(frame_like, max_size=8).map(b"".join))


@settings(max_examples=500)
@given(garbage, cut_lists, st.booleans(), st.booleans(), st.sampled_from([0, 8, 1000]))
def test_garbage_gives_a_fault_of_the_rfc_or_nothing_and_the_same_at_any_split(
    stream: bytes, cuts: list[int], is_server: bool, streams_binary: bool, limit: int
) -> None:
    def decoder() -> Decoder:
        return Decoder(is_server=is_server, max_message_bytes=limit, streams_binary=streams_binary)

    whole, split = decoder(), decoder()
    events = whole.feed(stream)
    split_events = feed_in_pieces(split, stream, cuts)
    if not streams_binary:
        assert split_events == events
    assert repr(split.fault) == repr(whole.fault)
    assert split.is_over == whole.is_over
    if whole.fault is not None:
        assert whole.fault.code in (1002, 1007, 1009)
    for opcode, payload in events:
        if opcode == Opcode.TEXT:
            payload.decode()
        if opcode == Opcode.CLOSE:
            parse_close(payload)
        if opcode < 8 and not (streams_binary and opcode == Opcode.BINARY):
            assert len(payload) <= limit


# Memory and time


def test_an_idle_decoder_is_small_and_returns_to_that_after_traffic() -> None:
    decoder = server()
    assert sys.getsizeof(decoder) <= 96
    assert not hasattr(decoder, "__dict__")
    stream = masked(1, b"a", final=False) + masked(0, b"b") + masked(9, b"c") + masked(2, b"d")
    feed_in_pieces(decoder, stream, list(range(len(stream))))
    assert (decoder._held, decoder._message) == (b"", None)


@pytest.mark.parametrize("end", [b"\xff\xff", encode_close(1000, "", MASK)])
def test_a_decoder_that_is_over_keeps_nothing_of_the_message_under_way(end: bytes) -> None:
    decoder = server()
    feed_in_pieces(decoder, masked(1, b"a" * 500, final=False) + end, [10, 500, 510])
    assert decoder.is_over
    assert (decoder._held, decoder._message) == (b"", None)


def test_a_decoder_that_failed_is_freed_without_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        decoder = server()
        decoder.feed(masked(1, b"\xff\xff", final=False))
        assert decoder.fault is not None
        assert decoder.fault.__traceback__ is None
        del decoder
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_message_of_a_million_empty_fragments_takes_no_memory() -> None:
    decoder = server()
    decoder.feed(masked(1, b"a", final=False))
    fragments = masked(0, final=False) * 10_000
    tracemalloc.start()
    try:
        decoder.feed(fragments)
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(10):
            assert decoder.feed(fragments) == []
        assert tracemalloc.get_traced_memory()[0] - before < 1_000
    finally:
        tracemalloc.stop()
    assert decoder.feed(masked(0, b"b")) == [(1, b"ab")]


def test_what_is_held_of_a_frame_that_is_not_whole_is_bounded() -> None:
    for stream in (masked(9, b"x" * 125), masked(2, b"x" * 900), b"\x82\xff" + (900).to_bytes(8) + MASK):
        decoder = server()
        for at in range(len(stream) - 1):
            decoder.feed(stream[at : at + 1])
            assert len(decoder._held) <= 131


class Counted(bytes):
    """Bytes that count how many are copied out of them, and out of the copies."""

    copied = 0

    def __getitem__(self, place: Any) -> Any:
        part = super().__getitem__(place)
        if isinstance(part, int):
            return part
        Counted.copied += len(part)
        return Counted(part)


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many bytes the decoder has copied, unmasked and decoded."""
    counts: Counter[str] = Counter()

    def mask(data: bytes, key: bytes) -> bytes:
        counts["unmasked"] += len(data)
        return apply_mask_in_python(data, key)

    def decode(data: bytes, errors: str, final: bool) -> tuple[str, int]:
        counts["decoded"] += len(data)
        return codecs.utf_8_decode(data, errors, final)

    monkeypatch.setattr(frames, "apply_mask", mask)
    monkeypatch.setattr(frames, "utf_8_decode", decode)
    return counts


@pytest.mark.parametrize("opcode", [1, 2])
def test_a_huge_frame_byte_by_byte_is_touched_a_few_times_a_byte(handled: Counter[str], opcode: int) -> None:
    stream = masked(opcode, "é".encode() * 5_000)
    decoder = server(len(stream))
    handled.clear()
    Counted.copied = 0
    for at in range(len(stream)):
        decoder.feed(Counted(stream[at : at + 1]))
    assert decoder.fault is None
    assert handled["unmasked"] == 10_000
    assert handled["decoded"] <= (2 * 10_000 if opcode == 1 else 0)
    assert Counted.copied <= 2 * len(stream)


def test_many_small_frames_in_one_feed_are_copied_a_few_times_a_byte(handled: Counter[str]) -> None:
    stream = masked(2, b"x" * 10) * 5_000
    handled.clear()
    Counted.copied = 0
    assert len(server().feed(Counted(stream))) == 5_000
    assert handled["unmasked"] == 50_000
    assert Counted.copied <= 2 * len(stream)
