"""A meter: from 10 µs to 10 s, in the histogram's own buckets."""

import pytest

from longwire.adapters.redis import connect
from longwire.adapters.redis.server import Call
from longwire.errors import StoreUnavailable
from longwire.meters import UNIT_S, Meter


@pytest.mark.parametrize("seconds", [0.000_1, 0.001, 0.25, 5.0])
def test_times_are_kept_within_nine_percent(seconds: float) -> None:
    meter = Meter()
    meter.note(seconds)
    found = meter.times.percentile_ms(0.5)
    assert found is not None
    assert seconds * 0.95 <= found * UNIT_S <= seconds * 1.0906


def test_what_takes_no_time_or_far_too_long_is_counted_as_well() -> None:
    meter = Meter()
    for seconds in (0.0, -1e-9, 3600.0):
        meter.note(seconds)
    meter.failed()
    assert (meter.times.total, meter.failures) == (3, 1)


async def test_an_engine_that_does_not_answer_counts_as_failures() -> None:
    redis = connect("redis://127.0.0.1:1/0", 0.5)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await redis.run([Call("GET", ["k"])])
    assert (redis.times.times.total, redis.times.failures) == (0, 2)
    await redis.aclose()
