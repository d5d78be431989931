"""The wheel: what is due is called, at its time, once; and a gap is a second at most."""

import random

import pytest

from longwire.net.wheel import TICK_S, Wheel, ticks
from longwire.testing import ManualClock


class Item:
    """Notes when it was called; asks for another call in ``again`` ticks."""

    def __init__(self, wheel: Wheel, again: int = 0) -> None:
        self.due_slot = -1
        self.wheel, self.again = wheel, again
        self.called: list[int] = []

    def on_due(self) -> int:
        self.called.append(self.wheel.tick)
        return self.again


class Clockwork:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.wheel = Wheel(self.clock.monotonic)

    def turn(self, count: int = 1) -> None:
        for _ in range(count):
            self.clock.advance(TICK_S)
            self.wheel.advance()

    def item(self, again: int = 0) -> Item:
        return Item(self.wheel, again)


@pytest.fixture
def works() -> Clockwork:
    return Clockwork()


@pytest.mark.parametrize("in_ticks", [1, 2, 100, 8_191])
def test_an_item_is_called_at_its_tick_and_not_again(works, in_ticks) -> None:
    item = works.item()
    works.wheel.add(item, in_ticks)
    works.turn(in_ticks - 1)
    assert item.called == []
    works.turn(10)
    assert item.called == [in_ticks]
    assert item.due_slot == -1


@pytest.mark.parametrize(("asked", "given"), [(0, 1), (-5, 1), (8_192, 8_191), (10**9, 8_191)])
def test_a_time_outside_of_the_wheel_is_its_nearest(works, asked, given) -> None:
    item = works.item()
    works.wheel.add(item, asked)
    works.turn(8_192)
    assert item.called == [given]


def test_an_item_that_asks_for_more_is_called_again(works) -> None:
    item = works.item(again=3)
    works.wheel.add(item, 1)
    works.turn(10)
    assert item.called == [1, 4, 7, 10]


def test_adding_again_moves_the_item(works) -> None:
    item = works.item()
    works.wheel.add(item, 2)
    works.wheel.add(item, 5)
    works.turn(10)
    assert item.called == [5]


def test_a_removed_item_is_not_called_and_removing_twice_is_no_error(works) -> None:
    item = works.item()
    works.wheel.add(item, 2)
    works.wheel.remove(item)
    works.wheel.remove(item)
    works.turn(10)
    assert item.called == []
    works.wheel.add(item, 1)
    works.turn()
    assert item.called == [11]


def test_replacing_gives_the_place_and_the_time_that_is_left(works) -> None:
    first, second, third = works.item(), works.item(), works.item()
    works.wheel.add(first, 5)
    works.turn(3)
    works.wheel.replace(first, second)
    assert first.due_slot == -1
    works.turn(5)
    assert (first.called, second.called) == ([], [5])
    works.wheel.replace(first, third)  # it lies in no slot: there is nothing to give
    works.turn(10)
    assert third.called == []


def test_items_of_one_moment_may_remove_move_and_add_each_other(works) -> None:
    class Meddler(Item):
        def on_due(self) -> int:
            for other in others:
                self.wheel.remove(other)
            self.wheel.add(moved, 2)
            self.wheel.add(fresh, 1)
            return super().on_due()

    meddlers = [Meddler(works.wheel) for _ in range(3)]
    others, moved, fresh = [works.item() for _ in range(20)], works.item(), works.item()
    for item in [*meddlers, moved, *others]:
        works.wheel.add(item, 1)
    works.turn(4)
    assert sum(len(item.called) for item in meddlers) == 3
    assert all(len(item.called) <= 1 for item in others)
    assert moved.called[-1] == 3
    assert fresh.called == [2]


def test_an_item_that_fails_takes_nobody_with_it(works, caplog) -> None:
    class Broken(Item):
        def on_due(self) -> int:
            raise RuntimeError("a bug")

    items = [works.item() for _ in range(5)]
    for item in [*items[:2], Broken(works.wheel), *items[2:]]:
        works.wheel.add(item, 1)
    works.turn(3)
    assert [item.called for item in items] == [[1]] * 5
    assert "a bug" in caplog.text


def test_a_gap_counts_for_a_second_at_most(works) -> None:
    item = works.item()
    works.wheel.add(item, ticks(5))
    works.clock.advance(3_600)
    works.wheel.advance()
    assert item.called == []
    assert works.wheel.tick == ticks(1)
    for _ in range(4):
        works.clock.advance(1)
        works.wheel.advance()
    assert item.called == [ticks(5)]


def test_time_that_is_less_than_a_tick_adds_up(works) -> None:
    for _ in range(100):
        works.clock.advance(TICK_S / 10)
        works.wheel.advance()
    assert works.wheel.tick in (9, 10)


@pytest.mark.parametrize(("seconds", "count"), [(0, 1), (0.01, 1), (0.25, 1), (0.26, 2), (1, 4), (5, 20), (15, 60)])
def test_ticks_cover_the_seconds(seconds, count) -> None:
    assert ticks(seconds) == count


def test_a_random_history_calls_each_item_when_a_plain_list_says(works) -> None:
    rng = random.Random(5)
    items = [works.item() for _ in range(200)]
    due: dict[int, int] = {}
    for _ in range(3_000):
        at = rng.randrange(len(items))
        match rng.randrange(4):
            case 0 | 1:
                in_ticks = rng.choice([1, 2, 3, 50, 8_000])
                works.wheel.add(items[at], in_ticks)
                due[at] = works.wheel.tick + in_ticks
            case 2:
                works.wheel.remove(items[at])
                due.pop(at, None)
            case 3:
                works.turn()
                now = works.wheel.tick
                expected = {index for index, tick in due.items() if tick == now}
                assert {n for n, item in enumerate(items) if item.called and item.called[-1] == now} == expected
                for index in expected:
                    del due[index]


def test_removal_costs_the_same_with_a_hundred_thousand_in_the_slot(works) -> None:
    """A scan for each would hang here."""
    items = [works.item() for _ in range(100_000)]
    for item in items:
        works.wheel.add(item, 7)
    for item in items:
        works.wheel.remove(item)
    works.turn(10)
    assert not any(item.called for item in items)
