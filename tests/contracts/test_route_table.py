"""What every RouteTable does, whatever engine it stands on. An adapter joins by a maker in ``MAKERS``."""

import random
from collections.abc import Callable

import pytest
from pyroaring import BitMap

from longwire.adapters.embedded.routes import EmbeddedRoutes
from longwire.clock import Clock
from longwire.ports.routes import Attached, Route, RouteTable
from longwire.testing import ManualClock

MAKERS: dict[str, Callable[[Clock], RouteTable]] = {"embedded": EmbeddedRoutes}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=sorted(MAKERS))
def routes(request: pytest.FixtureRequest, clock: ManualClock) -> RouteTable:
    return MAKERS[request.param](clock)


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


@pytest.mark.parametrize("kind", sorted(MAKERS))
async def test_epochs_rise_over_a_restart(kind) -> None:
    clock = ManualClock()
    (old,) = await MAKERS[kind](clock).attach("n1", [7])
    clock.advance(1)
    (new,) = await MAKERS[kind](clock).attach("n1", [7])
    assert new.epoch > old.epoch


async def test_a_random_history_ends_as_a_plain_dict_says(routes) -> None:
    rng = random.Random(3)
    truth: dict[int, Route] = {}
    given: list[tuple[str, int, int]] = []
    highest: dict[int, int] = {}
    for _ in range(2_000):
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
