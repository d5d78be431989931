"""The process's one clock."""

import time

import pytest

from longwire.clock import Clock, SystemClock


class Machine:
    """Stands in for the time module: a wall clock and a monotonic one that move apart."""

    def __init__(self) -> None:
        self.wall_s = 1_764_000_000.0
        self.monotonic_s = 500.0

    def time(self) -> float:
        return self.wall_s

    def monotonic(self) -> float:
        return self.monotonic_s


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    fake = Machine()
    monkeypatch.setattr("longwire.clock.time", fake)
    return fake


def test_a_new_clock_tells_the_wall_time() -> None:
    clock: Clock = SystemClock()
    before = time.time_ns() // 1_000_000
    assert abs(clock.now_ms() - before) < 60_000


def test_time_goes_on_with_the_monotonic_clock(machine: Machine) -> None:
    clock = SystemClock()
    start = clock.now_ms()
    machine.monotonic_s += 2.5
    machine.wall_s += 2.5
    assert clock.now_ms() - start == 2_500
    assert clock.monotonic() == 502.5
    assert clock.drift_ms() == 0


@pytest.mark.parametrize("jump_s", [-3600, 3600])
def test_a_jump_of_the_wall_clock_moves_no_time_and_shows_as_drift(machine: Machine, jump_s: int) -> None:
    clock = SystemClock()
    start = clock.now_ms()
    machine.wall_s += jump_s
    assert clock.now_ms() == start
    assert clock.drift_ms() == jump_s * 1_000


def test_a_clock_made_after_a_jump_believes_the_wall_again(machine: Machine) -> None:
    machine.wall_s += 3600
    assert abs(SystemClock().now_ms() - 1_764_003_600_000) <= 1
