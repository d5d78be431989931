"""The history of numbers: what rings keep, and how it is read."""

import pytest

from longwire.ports.backlog import Backlog
from longwire.seeing.history import FINE_SPAN_S, LONGEST_SPAN_S, MOST_POINTS, History, Sample
from longwire.testing.clock import ManualClock


class Looks:
    """What is found at each look, and how often somebody looked."""

    def __init__(self) -> None:
        self.sample = Sample(online=0, connects=0, closes=0)
        self.count = 0

    async def __call__(self) -> Sample:
        self.count += 1
        return self.sample


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def history(clock, looks) -> History:
    return History(looks, lambda: None, clock, clock.sleep)


async def test_each_second_of_the_last_minutes_is_shown_as_it_was(history, looks, clock) -> None:
    for online in range(60):
        looks.sample = Sample(online, connects=online / 10, closes=0, p99=online)
        await history.sample()
        clock.advance(1)
    span = history.span(60)
    assert span.step_s == 1
    assert len(span.at_ms) == 60
    assert span.values["online"] == [*map(float, range(60))]
    assert span.values["connects"][:3] == [0.0, 0.1, 0.2]
    assert span.at_ms[-1] == clock.now_ms() - 1_000


async def test_a_longer_span_has_longer_steps_with_means_and_highest_latencies(history, looks, clock) -> None:
    for second in range(FINE_SPAN_S):
        looks.sample = Sample(online=second, p99=second)
        await history.sample()
        clock.advance(1)
    span = history.span(FINE_SPAN_S)
    assert (span.step_s, len(span.at_ms)) == (2, MOST_POINTS)
    assert span.values["online"][100] == span.values["p99"][100] - 0.5
    an_hour = history.span(3_600)
    assert (an_hour.step_s, len(an_hour.at_ms)) == (10, 360)
    assert an_hour.values["p99"][-2] - an_hour.values["online"][-2] == 4.5
    a_day = history.span(LONGEST_SPAN_S)
    assert len(a_day.at_ms) <= MOST_POINTS
    assert a_day.values["online"][0] is None


async def test_rates_hold_for_the_time_since_the_look_before_and_longer_gaps_stay_unknown(
    history, looks, clock
) -> None:
    looks.sample = Sample(1, connects=3)
    await history.sample()
    clock.advance(10)
    await history.sample()
    clock.advance(30)
    await history.sample()
    online = history.span(60).values["online"]
    assert online[-41:-29] == [1.0] * 11 + [None]
    assert online[-2:] == [None, 1.0]


async def test_a_reason_to_close_counts_zero_while_it_does_not_happen(history, looks, clock) -> None:
    looks.sample = Sample(1, closes=0)
    await history.sample()
    clock.advance(1)
    looks.sample = Sample(1, closes=2, closes_by_reason={"peer": 2})
    await history.sample()
    span = history.span(60)
    assert list(span.closes_by_reason) == ["peer"]
    assert span.closes_by_reason["peer"][-3:] == [None, 0.0, 2.0]


async def test_what_waits_is_shown_once_it_was_counted(looks, clock) -> None:
    found: list[Backlog] = []
    history = History(looks, lambda: found[-1] if found else None, clock)
    await history.sample()
    clock.advance(1)
    found.append(
        Backlog(
            at_ms=clock.now_ms(), inbox=12_345_678, oldest_ms=None, push_pending=0, webhook_events=0, dead_letters=0
        )
    )
    await history.sample()
    assert history.span(60).values["inbox"][-2:] == [None, 12_345_678.0]


async def test_it_looks_each_second_only_while_somebody_reads(history, looks, clock) -> None:
    import asyncio

    running = asyncio.ensure_future(history.run())
    await clock.run_for(60)
    assert looks.count == 7
    history.span(60)
    await clock.run_for(9)
    assert looks.count >= 15
    await clock.run_for(60)
    assert looks.count <= 24
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_no_number_of_reasons_makes_it_grow_without_bound(history, looks, clock) -> None:
    looks.sample = Sample(1, closes=1, closes_by_reason={f"r{n}": 1.0 for n in range(1_000)})
    await history.sample()
    assert len(history.span(60).closes_by_reason) == 32
