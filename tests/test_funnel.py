"""The funnel of a segment: each device in one state, by precedence, whatever came in whatever order."""

import itertools

import hypothesis.strategies as st
from hypothesis import given
from pyroaring import BitMap

from longwire import funnel
from longwire.funnel import Segment
from longwire.push_model import RecipientState, SegmentCounts

ENDS = [state for state in RecipientState if state is not RecipientState.PENDING]
some = st.frozensets(st.integers(0, 20))


@given(some, st.fixed_dictionaries(dict.fromkeys(ENDS, some)))
def test_a_device_is_in_the_first_state_of_those_it_stands_in(targeted, ended) -> None:
    segment = Segment(BitMap(targeted))
    for state, devices in ended.items():
        setattr(segment, state.value, BitMap(devices & targeted))
    counts = segment.settle()
    found = segment.by_state()
    for device in targeted:
        expected = next((state for state in ENDS if device in ended[state]), RecipientState.PENDING)
        assert [state for state, devices in found.items() if device in devices] == [expected]
    assert set().union(*found.values()) == targeted
    assert segment.rest == found[RecipientState.PENDING]
    assert counts.targeted == len(targeted) == sum(len(devices) for devices in found.values())
    for state in ENDS:
        assert getattr(counts, state.value) == len(found[state])
    assert counts.rest == len(segment.rest)


@given(some, st.lists(st.tuples(st.booleans(), some), min_size=1, max_size=4))
def test_acks_and_writes_merge_the_same_in_any_order_and_twice(targeted, told) -> None:
    outcomes = set()
    for order in itertools.permutations(told):
        segment = Segment(BitMap(targeted))
        for is_ack, devices in (*order, *order):
            if is_ack:
                segment.ack(BitMap(devices))
            else:
                segment.write(BitMap(devices))
        outcomes.add((segment.settle(), frozenset(segment.acked), frozenset(segment.written)))
    assert len(outcomes) == 1


def test_an_acknowledgement_is_new_once_and_strangers_have_none() -> None:
    segment = Segment(BitMap([1, 2]))
    assert segment.ack(BitMap([1, 9])) == BitMap([1])
    assert segment.ack(BitMap([1, 2, 9])) == BitMap([2])
    assert segment.written == BitMap([1, 2])


def test_ends_are_given_to_who_is_pending_and_stay() -> None:
    segment = Segment(BitMap(range(6)))
    segment.ack(BitMap([0]))
    segment.write(BitMap([1]))
    segment.settle()
    assert segment.collapse(BitMap([0, 2])) == BitMap([2])
    segment.settle()
    assert segment.fail(BitMap([2, 3])) == BitMap([3])
    segment.settle()
    segment.cancel()
    segment.settle()
    assert (segment.canceled, segment.rest) == (BitMap([4, 5]), BitMap([1]))
    segment.withdraw()
    counts = segment.settle()
    assert counts == SegmentCounts(6, 2, acked=1, withdrawn=1, canceled=2, collapsed=1, failed=1)
    segment.ack(BitMap([5]))
    assert segment.settle() == SegmentCounts(6, 3, acked=2, withdrawn=1, canceled=1, collapsed=1, failed=1)


def test_without_a_time_to_live_who_was_not_written_to_has_expired() -> None:
    segment = Segment(BitMap([1, 2, 3]))
    segment.write(BitMap([1]))
    segment.expire_unwritten()
    assert segment.settle() == SegmentCounts(3, 1, expired=2, rest=1)
    segment.expire()
    assert segment.settle() == SegmentCounts(3, 1, expired=3)


def test_the_rest_has_expired_once_the_time_is_over() -> None:
    counts = SegmentCounts(10, 5, acked=4, expired=1, rest=5)
    before, after = funnel.stats(counts, 6, False), funnel.stats(counts, 6, True)
    assert (before.expired, before.pending, before.online_at_send) == (1, 5, 6)
    assert (after.expired, after.pending) == (6, 0)
