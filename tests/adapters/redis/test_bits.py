import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from longwire.adapters.redis import bits

SEGMENT = 3
FIRST = SEGMENT << 16


def truth(devices: BitMap) -> bytes:
    """Bit by bit, as Redis's SETBIT sets them."""
    found = bytearray(bits.BYTES)
    for device_no in devices:
        place = bits.index(device_no)
        found[place >> 3] |= 0x80 >> (place & 7)
    return bytes(found)


lows = st.integers(0, 0xFFFF)
ranges = st.tuples(lows, lows).map(lambda ends: range(FIRST + min(ends), FIRST + max(ends) + 1))
sets = st.builds(
    lambda parts, singles, step: BitMap().union(
        BitMap(FIRST + low for low in singles), *(BitMap(part[:: max(1, step)]) for part in parts)
    ),
    st.lists(ranges, max_size=3),
    st.sets(lows, max_size=50),
    st.integers(1, 40),
)


@settings(deadline=None)
@given(sets, st.booleans())
def test_what_is_dumped_is_what_redis_keeps_and_is_loaded_again(devices, is_optimized) -> None:
    if is_optimized:
        devices.run_optimize()
    dumped = bits.dump(devices, SEGMENT)
    assert dumped == truth(devices)
    assert bits.load(dumped, SEGMENT) == devices
    assert bits.load(dumped.rstrip(b"\0"), SEGMENT) == devices


@pytest.mark.parametrize("count", [0, 1, 4_095, 4_096, 4_097, 32_768, 65_535, 65_536])
def test_every_size_of_container_goes_both_ways(count) -> None:
    for devices in (
        BitMap(range(FIRST, FIRST + count)),
        BitMap(range(FIRST + 65_536 - count, FIRST + 65_536)),
        BitMap(range(FIRST, FIRST + 65_536, 65_536 // max(count, 1))),
    ):
        assert bits.load(bits.dump(devices, SEGMENT), SEGMENT) == devices


def test_other_segments_are_left_out() -> None:
    assert bits.dump(BitMap([FIRST - 1, FIRST, FIRST + 65_536]), SEGMENT) == truth(BitMap([FIRST]))


def test_the_highest_segment_has_bits_too() -> None:
    last = BitMap([(1 << 32) - 1, (1 << 32) - 65_536])
    assert bits.load(bits.dump(last, 65_535), 65_535) == last
    full = BitMap(range((1 << 32) - 65_536, 1 << 32))
    assert bits.load(bits.dump(full, 65_535), 65_535) == full
