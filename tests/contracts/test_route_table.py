"""What every RouteTable does, whatever engine it stands on. An adapter joins by a maker in ``MAKERS``."""

import itertools
import random
from collections.abc import AsyncIterator, Callable

import pytest
from pyroaring import BitMap

from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.adapters.redis import RedisRoutes, RedisServer, connect
from longwire.ports.routes import Attached, Route, RouteTable
from longwire.testing import ManualClock

KINDS = ("embedded", "redis", "redis cluster")

_prefixes = itertools.count()

Again = Callable[[], RouteTable]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=KINDS)
async def again(request: pytest.FixtureRequest, clock: ManualClock) -> AsyncIterator[Again]:
    """Makes the table, and makes it anew as a process does that starts again."""
    if request.param == "embedded":
        yield lambda: EmbeddedRoutes(clock)
        return
    server = server_of(request, request.param)
    prefix = f"routes{next(_prefixes)}"
    yield lambda: RedisRoutes(server, prefix)
    await server.aclose()


def server_of(request: pytest.FixtureRequest, kind: str) -> RedisServer:
    engine = request.getfixturevalue("redis_engine" if kind == "redis" else "redis_cluster")
    return connect(engine.url if kind == "redis" else engine.url.replace("redis:", "redis+cluster:"))


@pytest.fixture
def routes(again: Again) -> RouteTable:
    return again()


async def test_a_device_is_routed_to_the_node_that_attached_it(routes) -> None:
    (attached,) = await routes.attach("n1", [7])
    assert attached.previous is None
    assert await routes.find([8, 7, 7]) == [None, Route("n1", attached.epoch), Route("n1", attached.epoch)]


async def test_nothing_is_no_work(routes) -> None:
    assert await routes.attach("n1", []) == []
    assert await routes.find([]) == []
    await routes.detach("n1", [])


@pytest.mark.parametrize("second", ["n1", "n2"])
async def test_a_newer_attach_takes_over_and_says_from_whom(routes, second) -> None:
    (old,) = await routes.attach("n1", [7])
    (new,) = await routes.attach(second, [7])
    assert new.epoch > old.epoch
    assert new.previous == Route("n1", old.epoch)
    assert await routes.find([7]) == [Route(second, new.epoch)]


@pytest.mark.parametrize("second", ["n1", "n2"])
async def test_a_late_detach_never_removes_a_newer_route(routes, second) -> None:
    (old,) = await routes.attach("n1", [7])
    (new,) = await routes.attach(second, [7])
    await routes.detach("n1", [(7, old.epoch)])
    assert await routes.find([7]) == [Route(second, new.epoch)]
    await routes.detach("n1" if second == "n2" else "n2", [(7, new.epoch)])
    assert await routes.find([7]) == [Route(second, new.epoch)]
    await routes.detach(second, [(7, new.epoch)])
    await routes.detach(second, [(7, new.epoch)])
    assert await routes.find([7]) == [None]


async def test_epochs_rise_over_detach_and_with_the_clock(routes, clock) -> None:
    epochs = []
    for _ in range(5):
        (attached,) = await routes.attach("n1", [7])
        epochs.append(attached.epoch)
        await routes.detach("n1", [(7, attached.epoch)])
        clock.advance(0.5)
    assert epochs == sorted(set(epochs))
    assert epochs[-1] >= clock.now_ms() - 500


async def test_one_device_twice_in_a_batch_is_taken_over_by_itself(routes) -> None:
    first, second = await routes.attach("n1", [7, 7])
    assert second.epoch > first.epoch
    assert second.previous == Route("n1", first.epoch)
    assert await routes.find([7]) == [Route("n1", second.epoch)]


async def test_whereabouts_are_a_segments_devices_by_node(routes) -> None:
    last = 65_535
    await routes.attach("n1", [7, last, last + 1])
    await routes.attach("n2", [8, last + 2])
    assert await routes.whereabouts(0) == {"n1": BitMap([7, last]), "n2": BitMap([8])}
    assert await routes.whereabouts(1) == {"n1": BitMap([last + 1]), "n2": BitMap([last + 2])}
    assert await routes.whereabouts(2) == {}


async def test_whereabouts_follow_a_takeover_and_a_detach(routes) -> None:
    (old,) = await routes.attach("n1", [7])
    (new,) = await routes.attach("n2", [7])
    assert await routes.whereabouts(0) == {"n2": BitMap([7])}
    await routes.detach("n1", [(7, old.epoch)])
    assert await routes.whereabouts(0) == {"n2": BitMap([7])}
    await routes.detach("n2", [(7, new.epoch)])
    assert await routes.whereabouts(0) == {}


async def test_whereabouts_are_the_callers_own(routes) -> None:
    await routes.attach("n1", [7])
    (await routes.whereabouts(0))["n1"].clear()
    assert await routes.whereabouts(0) == {"n1": BitMap([7])}


async def test_epochs_rise_over_a_restart(again, clock) -> None:
    (old,) = await again().attach("n1", [7])
    clock.advance(1)
    (new,) = await again().attach("n1", [7])
    assert new.epoch > old.epoch


async def test_a_random_history_ends_as_a_plain_dict_says(routes) -> None:
    rng = random.Random(3)
    truth: dict[int, Route] = {}
    given: list[tuple[str, int, int]] = []
    highest: dict[int, int] = {}
    for _ in range(2_000 if isinstance(routes, EmbeddedRoutes) else 500):
        node = rng.choice(["n1", "n2", "n3"])
        if rng.random() < 0.6:
            wanted = [rng.randrange(20) for _ in range(rng.randrange(4))]
            attached: list[Attached] = await routes.attach(node, wanted)
            for no, one in zip(wanted, attached, strict=True):
                assert one.previous == truth.get(no)
                assert one.epoch > highest.get(no, 0)
                highest[no] = one.epoch
                truth[no] = Route(node, one.epoch)
                given.append((node, no, one.epoch))
        elif given:
            node, no, epoch = rng.choice(given)
            await routes.detach(node, [(no, epoch)])
            if truth.get(no) == Route(node, epoch):
                del truth[no]
    assert await routes.find(list(range(20))) == [truth.get(no) for no in range(20)]
    there: dict[str, BitMap] = {}
    for no, route in truth.items():
        there.setdefault(route.node_id, BitMap()).add(no)
    assert await routes.whereabouts(0) == there
    for node in ("n1", "n2", "n3"):
        here = there.get(node, BitMap())
        assert await routes.routed_to(node, 0) == here
        assert await routes.count(node) == len(here)


async def test_counts_and_segments_are_those_of_the_routes(routes) -> None:
    assert (await routes.segments(), await routes.nodes(), await routes.count("n1")) == ([], set(), 0)
    await routes.attach("n1", [7, 8, 70_000])
    (gone,) = await routes.attach("n2", [9])
    assert await routes.segments() == [0, 1]
    assert await routes.nodes() == {"n1", "n2"}
    assert [await routes.count(node) for node in ("n1", "n2", "n3")] == [3, 1, 0]
    assert await routes.routed_to("n1", 1) == BitMap([70_000])
    await routes.detach("n2", [(9, gone.epoch)])
    assert await routes.nodes() == {"n1"}


async def test_a_repair_sets_what_is_absent_with_its_own_epoch(routes) -> None:
    assert await routes.repair("n1", 1, [(70_000, 5), (70_001, 6)]) == []
    assert await routes.find([70_000, 70_001]) == [Route("n1", 5), Route("n1", 6)]
    assert await routes.routed_to("n1", 1) == BitMap([70_000, 70_001])
    assert await routes.segments() == [1]
    assert await routes.repair("n1", 1, [(70_000, 5)]) == []
    assert await routes.repair("n1", 1, []) == []


@pytest.mark.parametrize("other", ["n1", "n2"])
async def test_a_repair_loses_against_a_newer_route_and_wins_over_an_older_one(routes, other) -> None:
    (standing,) = await routes.attach(other, [7])
    assert await routes.repair("n1", 0, [(7, standing.epoch - 1)]) == [(7, Route(other, standing.epoch))]
    assert await routes.find([7]) == [Route(other, standing.epoch)]
    assert await routes.repair("n1", 0, [(7, standing.epoch + 1)]) == []
    assert await routes.find([7]) == [Route("n1", standing.epoch + 1)]
    assert await routes.whereabouts(0) == {"n1": BitMap([7])}


async def test_an_attach_behind_a_repair_takes_over_with_a_higher_epoch(routes, clock) -> None:
    ahead = max(clock.now_ms(), 4_000_000_000_000)
    await routes.repair("n1", 0, [(7, ahead)])
    (attached,) = await routes.attach("n2", [7])
    assert attached.previous == Route("n1", ahead)
    assert attached.epoch > ahead


async def test_a_sweep_removes_the_routes_of_one_node_only(routes) -> None:
    many = list(range(0, 140_000, 100))
    await routes.attach("n1", many)
    await routes.attach("n2", [100, 5])
    assert await routes.sweep("n1") == len(many) - 1
    assert await routes.sweep("n1") == 0
    assert await routes.nodes() == {"n2"}
    assert await routes.find([0, 100, 5]) == [None, *[r for r in await routes.find([100, 5]) if r.node_id == "n2"]]
    assert await routes.count("n2") == 2


async def test_no_epoch_is_given_again_behind_a_sweep(routes) -> None:
    (old,) = await routes.attach("n1", [7])
    await routes.sweep("n1")
    (new,) = await routes.attach("n2", [7])
    assert new.previous is None
    assert new.epoch > old.epoch
