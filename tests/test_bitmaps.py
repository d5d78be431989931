"""Segments of bitmaps: what is split is whole again, and a blob is what it was made of."""

import hypothesis.strategies as st
import pytest
from hypothesis import given
from pyroaring import BitMap

from longwire import bitmaps

numbers = st.one_of(st.integers(0, (1 << 32) - 1), st.integers(0, 1 << 18), st.sampled_from([65_535, 65_536, 131_071]))
sets = st.frozensets(numbers, max_size=50).map(BitMap)


@given(sets)
def test_the_parts_of_a_set_are_each_of_one_segment_and_together_the_set(devices) -> None:
    parts = bitmaps.split(devices)
    assert list(parts) == sorted({device >> 16 for device in devices}) == bitmaps.segments(devices)
    assert BitMap.union(BitMap(), *parts.values()) == devices
    for segment, part in parts.items():
        assert part == bitmaps.part(devices, segment)
        assert {bitmaps.segment_of(device) for device in part} == {segment}


@given(sets)
def test_a_set_is_the_same_from_its_blob(devices) -> None:
    blob = bitmaps.dump(devices)
    assert (blob is None) == (not devices)
    assert bitmaps.load(blob) == devices


@given(sets, numbers)
def test_those_above_a_number_are_found(devices, number) -> None:
    before = devices.copy()
    assert set(bitmaps.above(devices, number)) == {device for device in devices if device > number}
    assert devices == before
    assert bitmaps.above(devices, -1) == devices


@pytest.mark.parametrize("step", [1, 2, 3, 5, 17, 1_000])
def test_a_segment_fits_its_bound(step) -> None:
    blob = bitmaps.dump(BitMap(range(65_536 * 7, 65_536 * 8, step)))
    assert blob is not None
    assert len(blob) <= 8_256  # what a column of the store takes


def test_the_last_of_a_segment_is_before_the_first_of_the_next() -> None:
    assert bitmaps.last_of(0) == 65_535
    assert bitmaps.segment_of(bitmaps.last_of(4) + 1) == 5
