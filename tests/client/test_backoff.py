from random import Random

from longwire.client.backoff import Backoff


class Highest(Random):
    """Chance at its most patient."""

    def uniform(self, a: float, b: float) -> float:
        return b


def test_the_bound_doubles_from_1_s_to_120_s_and_stays_there() -> None:
    backoff = Backoff(Highest())
    assert [backoff.next_delay_s() for _ in range(9)] == [1, 2, 4, 8, 16, 32, 64, 120, 120]


def test_the_jitter_is_full_from_zero_to_the_bound() -> None:
    delays = []
    rng = Random(7)
    for _ in range(500):
        backoff = Backoff(rng)
        for _ in range(3):
            backoff.next_delay_s()
        delays.append(backoff.next_delay_s())
    assert min(delays) < 0.2
    assert 7.8 < max(delays) <= 8
    assert 3.5 < sum(delays) / len(delays) < 4.5


def test_no_delay_is_shorter_than_the_node_asked_for() -> None:
    backoff = Backoff(Random(1))
    assert all(backoff.next_delay_s(retry_after_ms=7_500) >= 7.5 for _ in range(3))
    assert Backoff(Random(1)).next_delay_s(retry_after_ms=7_500) == 7.5


def test_a_session_of_30_s_wipes_the_slate_and_a_shorter_one_does_not() -> None:
    backoff = Backoff(Highest())
    for _ in range(5):
        backoff.next_delay_s()
    backoff.settle(29.9)
    assert backoff.next_delay_s() == 32
    backoff.settle(30)
    assert backoff.next_delay_s() == 1


def test_after_protocol_faults_each_wait_is_three_times_the_last_up_to_an_hour() -> None:
    backoff = Backoff(Highest())
    assert [backoff.fault_delay_s(60_000) for _ in range(5)] == [60, 180, 540, 1620, 3600]
    backoff.settle(30)
    assert backoff.fault_delay_s(0) == 60


def test_a_node_may_ask_for_more_than_an_hour_after_a_fault() -> None:
    assert Backoff(Highest()).fault_delay_s(7_200_000) == 7200


def test_years_of_failures_do_not_overflow() -> None:
    backoff = Backoff(Highest())
    for _ in range(5_000):
        delay_s = backoff.next_delay_s()
        fault_s = backoff.fault_delay_s()
    assert (delay_s, fault_s) == (120, 3600)
