"""The two pictures of the README: a console with something to see. ``make screens`` takes them, in minutes."""

import itertools
import math
import os
import time
from random import Random

import pytest
from console_desk import SCREENS, SignIn
from console_world import CITIES, World
from playwright.sync_api import Page

_DEVICES = 240
_FOR_S = 300.0 if os.environ.get("LONGWIRE_SCREENS") == "all" else 20.0
_TURN_MS = 400
_SIZE = {"width": 1280, "height": 960}


@pytest.mark.chaos
def test_pictures_of_the_readme_are_taken(signed_in: SignIn, world: World) -> None:
    names = [f"till-{number:03}" for number in range(1, _DEVICES + 1)]
    tokens: dict[str, str] = {}
    for place, city in enumerate(CITIES):
        tokens |= world.register(*names[place::3], tags=[f"city:{city}", "till"], user=f"shop-{city}")
    desk = signed_in("admin", viewport=_SIZE)
    desk.visit("/")
    chance, until = Random(7), time.monotonic() + _FOR_S
    for turn in itertools.count():
        _come_and_go(world, tokens, chance)
        _talk(world, chance, 3 + round(4 + 4 * math.sin(turn / 40)))
        desk.page.wait_for_timeout(_TURN_MS)
        if time.monotonic() > until:
            break
    _take(desk.page, "readme-overview")
    push = {"audience": {"all": True}, "message": {"kind": "opening-hours", "payload": {"until": "20:00"}}}
    push_id = world.call("POST", "/v1/pushes", push)["id"]
    desk.visit(f"/pushes/{push_id}")
    desk.page.wait_for_timeout(6_000)
    _take(desk.page, "readme-push")
    desk.check()


def _come_and_go(world: World, tokens: dict[str, str], chance: Random) -> None:
    """More come than go, until most are there."""
    for device_id in chance.sample(sorted(tokens), 4):
        if device_id not in world.fleet.devices:
            world.fleet.connect(device_id, tokens[device_id])
        elif chance.random() < 0.15:
            world.fleet.leave(device_id)


def _talk(world: World, chance: Random, count: int) -> None:
    """Messages down and up."""
    here = sorted(world.fleet.devices)
    for device_id in chance.choices(here, k=count):
        message = {"to": f"device:{device_id}", "kind": "price", "payload": {"coffee": 2.4}}
        world.call("POST", "/v1/messages", message)
    for device_id in chance.choices(here, k=2):
        world.fleet.run(world.fleet.devices[device_id].send("", "two coffees", "order"))


def _take(page: Page, name: str) -> None:
    SCREENS.mkdir(parents=True, exist_ok=True)
    path = SCREENS / f"{name}.png"
    page.screenshot(path=path, animations="disabled")
    assert path.stat().st_size > 10_000
