import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from longwire.ids import new_message_id, prefixed, read_traceparent
from longwire.testing import ManualClock
from longwire.traces import CALL, MARKED, SAMPLED, Call, Hop, Marks, Traces, hops_log, is_sampled

TRACE_ID = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736")
GIVEN = TRACE_ID + bytes.fromhex("00f067aa0ba902b7")
TRACEPARENT = f"00-{TRACE_ID.hex()}-00f067aa0ba902b7-01"


def bits(trace: bytes) -> int:
    return trace[23] & (SAMPLED | MARKED)


@pytest.fixture
def call():
    """The call that the test's own code belongs to."""
    call = Call(prefixed("req", new_message_id()))
    token = CALL.set(call)
    yield call
    CALL.reset(token)


# Entering


@given(st.binary(min_size=24, max_size=24))
def test_whatever_bits_a_callers_span_has_they_sample_nothing(context: bytes) -> None:
    entered = Traces().enter(context)
    assert entered[:16] == context[:16] or not any(context[:16])
    assert not is_sampled(entered)
    assert any(entered[16:])


def test_only_a_trusted_callers_word_samples() -> None:
    traces = Traces()
    assert not is_sampled(traces.enter(GIVEN, says_sampled=True))
    assert not is_sampled(traces.enter(GIVEN, is_trusted=True))
    assert bits(traces.enter(GIVEN, is_trusted=True, says_sampled=True)) == SAMPLED


def test_without_a_context_and_a_mark_nothing_is_made() -> None:
    assert Traces(ratio=1).enter(b"") == b""
    assert not is_sampled(b"")


def test_the_ratio_goes_by_the_end_of_the_trace_id_and_so_is_the_same_in_every_process() -> None:
    low, high = b"i" * 9 + bytes(7), b"i" * 9 + b"\xff" * 7
    for traces in (Traces(ratio=0.5), Traces(ratio=0.5)):
        assert is_sampled(traces.enter(low + GIVEN[16:]))
        assert not is_sampled(traces.enter(high + GIVEN[16:]))
    assert is_sampled(Traces(ratio=1).enter(high + GIVEN[16:]))
    assert not is_sampled(Traces(ratio=0).enter(low + GIVEN[16:]))
    sampled = sum(is_sampled(Traces(ratio=0.25).enter(new_message_id() + GIVEN[16:])) for _ in range(2_000))
    assert 350 < sampled < 650


def test_a_marked_device_or_push_is_told_whole_with_or_without_a_context() -> None:
    traces = Traces()
    traces.set_marks(Marks(BitMap([7]), frozenset([b"p" * 16])))
    assert traces.has_marks
    made = traces.enter(b"", devices=(3, 7))
    assert (len(made), bits(made)) == (24, SAMPLED | MARKED)
    assert traces.enter(b"", devices=(3,)) == b""
    assert bits(traces.enter(GIVEN, push_id=b"p" * 16)) == SAMPLED | MARKED
    assert bits(traces.enter(GIVEN, devices=BitMap([8]))) == 0
    traces.set_marks(Marks(BitMap()))
    assert not traces.has_marks
    assert traces.enter(b"", devices=(7,)) == b""


def test_once_its_receivers_are_known_a_message_to_a_marked_one_is_marked_and_so_is_its_call(call: Call) -> None:
    traces = Traces()
    trace = traces.enter_call(call)
    traces.set_marks(Marks(BitMap([7])))
    assert traces.marked(trace, (1, 2)) == trace
    marked = traces.marked(trace, BitMap([7, 9]))
    assert marked[:23] == trace[:23]
    assert bits(marked) == SAMPLED | MARKED
    assert call.trace == marked
    assert traces.marked(marked, (1,)) == marked


def test_once_its_receivers_are_known_a_message_without_a_context_gets_one() -> None:
    traces = Traces()
    traces.set_marks(Marks(BitMap([7])))
    assert traces.marked(b"", (1,)) == b""
    assert bits(traces.marked(b"", (7,))) == SAMPLED | MARKED


# Calls


def test_a_call_without_a_traceparent_has_its_request_ids_bytes_as_trace_id() -> None:
    number = new_message_id()
    call = Call(prefixed("req", number))
    assert call.trace_id == number.hex()
    assert call.trace is call.trace
    entered = Traces().enter_call(call)
    assert (entered[:16], bits(entered), call.parent) == (number, 0, b"")


def test_a_call_with_a_traceparent_goes_on_with_it_and_says_whether_it_is_sampled() -> None:
    call = Call("mine", TRACEPARENT)
    assert (call.trace_id, call.parent) == (TRACE_ID.hex(), GIVEN[16:])
    entered = Traces().enter_call(call)
    assert (bits(entered), call.trace) == (SAMPLED, entered)
    assert Traces().enter_call(call) == entered, "decided once"
    assert not is_sampled(Traces().enter_call(Call("mine", TRACEPARENT[:-1] + "0")))


@pytest.mark.parametrize("request_id", ["", "mine", "req_", "req_" + "0" * 32, "req_" + "z" * 32, "a" * 32])
def test_a_request_id_of_anothers_making_gets_a_random_trace_id(request_id: str) -> None:
    call, other = Call(request_id), Call(request_id)
    assert len(call.trace) == 24
    assert call.trace_id != other.trace_id
    assert call.trace_id == call.trace_id


@given(st.text(max_size=80))
def test_no_text_of_a_caller_breaks_a_call(text: str) -> None:
    call = Call(text, text)
    assert len(call.trace) == 24
    assert Traces().enter_call(call)[:16] == bytes.fromhex(call.trace_id)
    assert read_traceparent(text)[0] in (b"", call.given)


# Telling


def test_hops_are_children_of_the_entrys_span_and_the_entry_is_a_child_of_the_callers() -> None:
    told: list[Hop] = []
    clock = ManualClock()
    traces = Traces(tells=[told.append], clock=clock)
    trace = traces.enter(GIVEN, is_trusted=True, says_sampled=True)
    began_ns = traces.now_ns()
    clock.advance(0.25)
    traces.hop("message.accepted", trace, began_ns=began_ns, parent=GIVEN[16:], seq=3)
    traces.hop("message.written", trace, device_id="d-1")
    entry, hop = told
    assert (entry.span, entry.parent, entry.facts) == (trace[16:], GIVEN[16:], (("seq", 3),))
    assert entry.ended_ns - entry.began_ns == 250_000_000
    assert entry.began_ns == ManualClock().now_ms() * 1_000_000
    assert (hop.parent, hop.kind, hop.began_ns) == (trace[16:], "producer", hop.ended_ns)
    assert hop.span not in (trace[16:], b"", bytes(8))


def test_a_flood_of_hops_is_told_up_to_its_bound_and_the_rest_counted() -> None:
    told: list[Hop] = []
    clock = ManualClock()
    traces = Traces(tells=[told.append], clock=clock, most_per_s=10, lost=lambda: 5)
    trace = traces.enter(GIVEN, is_trusted=True, says_sampled=True)
    for _ in range(25):
        traces.hop("message.written", trace)
    assert (len(told), traces.told, traces.dropped) == (10, 10, 15 + 5)
    clock.advance(1)
    traces.hop("message.written", trace)
    assert len(told) == 11


def test_marked_hops_have_room_of_their_own() -> None:
    told: list[Hop] = []
    traces = Traces(ratio=1, tells=[told.append], clock=ManualClock(), most_per_s=10)
    for _ in range(20):
        traces.hop("message.written", traces.enter(GIVEN))
    traces.set_marks(Marks(BitMap([7])))
    for _ in range(20):
        traces.hop("message.written", traces.enter(GIVEN, devices=(7,)))
    assert [bits(hop.trace) for hop in told] == [SAMPLED] * 10 + [SAMPLED | MARKED] * 10


def test_a_device_that_sends_an_invalid_trace_id_gets_a_sound_one() -> None:
    entered = Traces(ratio=1).enter(bytes(24))
    assert any(entered[:16])
    assert any(entered[16:])


def test_the_log_tells_marked_hops_at_info_and_others_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    traces = Traces(tells=[hops_log])
    sampled = traces.enter(GIVEN, is_trusted=True, says_sampled=True)
    traces.set_marks(Marks(BitMap([7])))
    marked = traces.enter(GIVEN, devices=(7,))
    with caplog.at_level(logging.INFO, "longwire.hops"):
        traces.hop("message.written", sampled, device_id="d-1")
        traces.hop("message.acked", marked, device_id="d-2")
    (line,) = caplog.records
    assert line.getMessage() == "message.acked device_id=d-2"
    assert line.__dict__["trace.id"] == TRACE_ID.hex()
    assert line.__dict__["labels"] == {"hop": "message.acked", "device_id": "d-2"}
    with caplog.at_level(logging.DEBUG, "longwire.hops"):
        traces.hop("message.written", sampled, device_id="d-1")
    assert caplog.records[-1].levelno == logging.DEBUG
