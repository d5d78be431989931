"""Histograms as Prometheus takes them: cumulative, whole, and with a sum that is right within 4.5 %."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from longwire.app.metrics.families import counter, gauge, histogram
from longwire.histogram import Histogram

# From a unit to a second: below the first unit and above the last octave a sum knows no better than the bucket.
values = st.lists(st.floats(1.0, 100_000.0, exclude_min=True), max_size=200)


def folded(found: list[float]) -> tuple[list[tuple[float, float]], float]:
    """(upper bound in seconds, count) and the sum."""
    made = Histogram()
    for value in found:
        made.add(value)
    samples = histogram("t_seconds", "T.", made, 0.001).samples
    buckets = [(float(one.labels["le"]), one.value) for one in samples if one.name == "t_seconds_bucket"]
    return buckets, next(one.value for one in samples if one.name == "t_seconds_sum")


@given(values)
def test_a_bucket_counts_every_value_up_to_its_bound(found: list[float]) -> None:
    buckets, _ = folded(found)
    assert buckets[-1] == (float("inf"), len(found))
    assert [count for _, count in buckets] == sorted(count for _, count in buckets)
    for bound, count in buckets:
        # A value that is a bound itself stands in the bucket above it.
        assert sum(value < 1000 * bound * (1 - 1e-9) for value in found) <= count
        assert count <= sum(value <= 1000 * bound * (1 + 1e-9) for value in found)


@given(values)
def test_the_sum_is_right_within_four_and_a_half_percent(found: list[float]) -> None:
    _, told = folded(found)
    assert told == pytest.approx(sum(found) / 1000, rel=0.045)


def test_one_number_has_no_label_and_several_have_one() -> None:
    assert [sample.labels for sample in gauge("t", "T.", 3).samples] == [{}]
    found = counter("t", "T.", {"a": 1, "b": 2}, "kind").samples
    assert [(sample.name, sample.labels, sample.value) for sample in found] == [
        ("t_total", {"kind": "a"}, 1),
        ("t_total", {"kind": "b"}, 2),
    ]


def test_histograms_of_one_family_stand_beside_each_other() -> None:
    one, other = Histogram(), Histogram()
    one.add(5)
    family = histogram("t_seconds", "T.", {"a": one, "b": other}, 0.001, "engine")
    counts = {sample.labels["engine"]: sample.value for sample in family.samples if sample.name == "t_seconds_count"}
    assert counts == {"a": 1, "b": 0}
