"""Buckets: bursts, refilling, and a bound on memory."""

import pytest

from longwire.accounts.buckets import Buckets
from longwire.testing.clock import ManualClock


def test_a_burst_passes_and_then_one_for_each_interval() -> None:
    clock = ManualClock()
    buckets = Buckets(10, 5, clock.monotonic)
    assert [buckets.take("a") for _ in range(5)] == [0.0] * 5
    assert buckets.take("a") == pytest.approx(0.1)
    assert buckets.take("b") == 0.0  # each name has its own
    clock.advance(0.1)
    assert buckets.wait_s("a") == 0.0
    assert buckets.take("a") == 0.0
    assert buckets.take("a") == pytest.approx(0.1)
    clock.advance(100)
    assert [buckets.take("a") for _ in range(6)] == [0.0] * 5 + [pytest.approx(0.1)]


def test_a_rate_of_zero_is_no_limit() -> None:
    buckets = Buckets(0, 1, ManualClock().monotonic)
    assert all(buckets.take("a") == 0.0 for _ in range(100))
    assert buckets.wait_s("a") == 0.0


def test_names_that_come_once_do_not_pile_up() -> None:
    clock = ManualClock()
    buckets = Buckets(1, 1, clock.monotonic, max_names=100)
    for n in range(10_000):
        buckets.take(str(n))
        assert len(buckets._full_at) <= 100
    assert buckets.take("9999") > 0  # the latest are the ones still known
