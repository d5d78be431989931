"""Latencies in buckets: percentiles within 9 %, merging is adding, blobs are the same on every machine."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from longwire.histogram import BUCKETS, Histogram

latencies = st.lists(st.floats(1.0, 1_000_000), min_size=1, max_size=200)


def histogram(values) -> Histogram:
    made = Histogram()
    for value in values:
        made.add(value)
    return made


@given(latencies, st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_right_within_nine_percent(values, share) -> None:
    found = histogram(values).percentile_ms(share)
    rank = next(value for seen, value in enumerate(sorted(values), 1) if seen >= share * len(values))
    assert rank * 0.99 - 0.05 <= found <= rank * 1.0906 + 0.05


@given(latencies, latencies)
def test_merging_is_adding(one, other) -> None:
    merged = histogram(one)
    merged.merge(histogram(other))
    assert merged.counts == histogram(one + other).counts
    assert merged.total == len(one) + len(other)


@given(latencies)
def test_a_histogram_is_the_same_from_its_blob(values) -> None:
    made = histogram(values)
    blob = made.dump()
    assert blob is not None
    assert len(blob) == 4 * BUCKETS
    again = Histogram.load(blob)
    assert (again.counts, again.total) == (made.counts, made.total)


def test_blobs_are_big_endian_on_every_machine() -> None:
    assert histogram([0.5]).dump()[:4] == b"\x00\x00\x00\x01"


def test_an_empty_one_says_nothing_and_takes_no_bytes() -> None:
    empty = Histogram()
    assert (empty.percentile_ms(0.5), empty.dump(), Histogram.load(None).total) == (None, None, 0)


@pytest.mark.parametrize("latency", [0, -5, 0.001, 1])
def test_what_is_below_a_millisecond_counts_as_one(latency) -> None:
    assert histogram([latency]).percentile_ms(1) == 1.0


def test_what_is_above_the_last_bucket_counts_in_it() -> None:
    assert histogram([1e12]).counts[-1] == 1


def test_one_that_is_kept_for_years_does_not_run_over() -> None:
    kept = Histogram([2**32 - 1] + [0] * (BUCKETS - 1))
    kept.add(0.5)
    assert kept.counts[0] == 2**32
