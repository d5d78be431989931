"""A great loss at once is not believed at once; a small one is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from longwire.adapters.zookeeper.view import View
from longwire.model import NodeInfo
from longwire.testing import ManualClock


def nodes(names: str, *, is_draining: bool = False) -> dict[str, NodeInfo]:
    return {name: NodeInfo(name, "h", 1, None, "ws://h:1/ws", is_draining) for name in names}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def view(clock) -> View:
    view = View(clock.monotonic, 5.0)
    view.take(nodes("abcd"), {})
    return view


def test_half_of_the_nodes_may_go_at_once(view) -> None:
    view.take(nodes("ab"), {})
    assert set(view.nodes) == set("ab")
    assert not view.is_doubting


def test_more_than_half_stay_until_a_later_listing_confirms_it(view, clock) -> None:
    view.take(nodes("a"), {})
    assert set(view.nodes) == set("abcd")
    clock.advance(4.9)
    view.take(nodes("a"), {})
    assert set(view.nodes) == set("abcd")
    clock.advance(0.1)
    view.take(nodes("a"), {})
    assert set(view.nodes) == {"a"}
    assert not view.is_doubting


def test_time_alone_confirms_nothing(view, clock) -> None:
    view.take({}, {})
    clock.advance(60)
    assert set(view.nodes) == set("abcd")


def test_nodes_that_are_listed_again_were_never_gone(view, clock) -> None:
    view.take({}, {})
    clock.advance(3)
    view.take(nodes("abc"), {})
    assert set(view.nodes) == set("abcd")
    clock.advance(2)
    view.take(nodes("abc"), {})
    assert set(view.nodes) == set("abc")


def test_losses_one_by_one_count_together(view, clock) -> None:
    view.take(nodes("abc"), {})
    clock.advance(0.5)
    view.take(nodes("ab"), {})
    clock.advance(0.5)
    assert set(view.nodes) == set("ab")
    view.take(nodes("a"), {})
    assert set(view.nodes) == set("abcd")


def test_losses_far_apart_do_not_count_together(view, clock) -> None:
    for left in ("abc", "ab", "a"):
        view.take(nodes(left), {})
        assert set(view.nodes) == set(left)
        clock.advance(5)


def test_new_nodes_do_not_settle_a_doubt(view) -> None:
    view.take(nodes("a"), {})
    view.take(nodes("axyz"), {})
    assert set(view.nodes) == set("abcdxyz")


def test_a_whole_cluster_that_was_started_anew_replaces_the_old_one_at_once(view) -> None:
    view.take(nodes("wxyz"), {})
    assert set(view.nodes) == set("wxyz")


def test_draining_nodes_may_all_go(clock) -> None:
    view = View(clock.monotonic, 5.0)
    view.take(nodes("abc", is_draining=True), {})
    view.take({}, {})
    assert view.nodes == {}


def test_the_nodes_of_this_process_live_whatever_is_listed(view) -> None:
    view.take({}, nodes("z"))
    assert "z" in view.nodes


def test_an_interruption_begins_the_wait_anew(view, clock) -> None:
    view.take({}, {})
    clock.advance(4)
    view.interrupted()
    clock.advance(4)
    view.take({}, {})
    assert set(view.nodes) == set("abcd")
    clock.advance(1)
    view.take({}, {})
    assert view.nodes == {}


def test_just_after_an_interruption_every_loss_waits(view, clock) -> None:
    view.interrupted()
    clock.advance(4)
    view.take(nodes("abc"), {})
    assert set(view.nodes) == set("abcd")
    clock.advance(4)
    view.take(nodes("abc"), {})
    assert set(view.nodes) == set("abcd")
    clock.advance(1)
    view.take(nodes("abc"), {})
    assert set(view.nodes) == set("abc")
    view.take(nodes("ab"), {})
    assert set(view.nodes) == set("ab")


def test_the_first_connection_is_no_interruption(clock) -> None:
    view = View(clock.monotonic, 5.0)
    view.interrupted()
    view.take(nodes("abc"), {})
    view.take(nodes("ab"), {})
    assert set(view.nodes) == set("ab")


@given(st.lists(st.tuples(st.sets(st.sampled_from("abcdefg")), st.floats(0, 7))))
def test_what_is_listed_is_always_believed_and_what_is_not_goes_in_the_end(listings) -> None:
    clock = ManualClock()
    view = View(clock.monotonic, 5.0)
    for listed, passed_s in listings:
        view.take(nodes("".join(listed)), {})
        assert listed <= set(view.nodes)
        clock.advance(passed_s)
    last = nodes("a")
    view.take(last, {})
    clock.advance(5.01)
    view.take(last, {})
    assert view.nodes == last
