"""A million devices: every page has its first data within a second, and so has the list of devices by any filter.

The devices are written into the store as registering would, but by whole sets: see ``seed``.
"""

import sqlite3
import statistics
import time
from pathlib import Path

import pytest
from console_desk import Desk
from console_world import World
from pyroaring import BitMap

from longwire import bitmaps
from longwire.push_model import SetKind

_MILLION = 1_000_000
_PAGE_WITHIN_S = 1.0
_LIST_WITHIN_S = 0.3
_TAGS = {"fleet": 1, "city:berlin": 3, "model:x1": 10, "pilot": 1_000}
"""A tag, and every which device has it."""
_QUERIES: tuple[dict[str, str], ...] = (
    {},
    {"q": "unit-0"},
    {"q": "unit-0123456"},
    {"tag": "fleet"},
    {"tag": "pilot"},
    {"group": "everybody", "online": "false"},
    {"user": "owner-17"},
    {"online": "true"},
    {"online": "false"},
)
_PAGES = ("/", "/devices", "/devices?tag=fleet&online=false", "/devices?q=unit-05", "/devices/unit-0500000", "/groups")
_PAGES += ("/groups/everybody", "/trace", "/trace?q=unit-0500000", "/pushes", "/nodes", "/limits", "/audit", "/people")


@pytest.fixture(scope="module")
def big_world(tmp_path_factory: pytest.TempPathFactory):
    """A world of its own, whose store has a million devices before it starts."""
    made = World(tmp_path_factory.mktemp("million"))
    made.start()
    made.stop()  # it has made its schema and its keys
    seed(made.folder / "data/longwire.db")
    try:
        made.start()
        made.add_people()
        yield made
    finally:
        made.stop()


def seed(path: Path) -> None:
    """A million devices with tags, users and a group."""
    now_ms = int(time.time() * 1000)
    with sqlite3.connect(path) as store:
        store.execute("PRAGMA synchronous = OFF")
        first = store.execute("SELECT coalesce(max(device_no), 0) + 1 FROM devices").fetchone()[0]
        devices = (
            (no, f"unit-{no - first:07}", f"owner-{no % 50_000}", "linux", "2.1", now_ms)
            for no in range(first, first + _MILLION)
        )
        store.executemany(
            'INSERT INTO devices (device_no, device_id, "user", platform, app_version, registered_at_ms)'
            " VALUES (?, ?, ?, ?, ?, ?)",
            devices,
        )
        everybody = BitMap(range(first, first + _MILLION))
        _join(store, SetKind.EVERYONE, "", everybody, now_ms)
        _join(store, SetKind.GROUP, "everybody", everybody, now_ms)
        for tag, every in _TAGS.items():
            _join(store, SetKind.TAG, tag, BitMap(range(first, first + _MILLION, every)), now_ms)


def _join(store: sqlite3.Connection, kind: SetKind, name: str, members: BitMap, now_ms: int) -> None:
    found = store.execute("SELECT set_no FROM device_sets WHERE kind = ? AND name = ?", (int(kind), name)).fetchone()
    if found is None:
        found = store.execute(
            "INSERT INTO device_sets (kind, name, created_at_ms) VALUES (?, ?, ?) RETURNING set_no",
            (int(kind), name, now_ms),
        ).fetchone()
    for segment, part in bitmaps.split(members).items():
        row = (found[0], segment, len(part), bitmaps.dump(part))
        store.execute("INSERT INTO device_set_segments (set_no, segment, size, members) VALUES (?, ?, ?, ?)", row)


@pytest.mark.chaos
def test_every_page_is_there_within_a_second(big_world: World, browser) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    cookies = big_world.cookies["admin"].items()
    context.add_cookies([{"name": name, "value": value, "url": big_world.url} for name, value in cookies])
    desk = Desk(context, big_world.url)
    desk.visit("/limits")  # the browser has the scripts now
    took = {}
    for path in _PAGES:
        times = []
        for _ in range(3):
            desk.visit(path)
            times.append(desk.took_s)
        took[path] = statistics.median(times)
    context.close()
    print({path: round(seconds, 2) for path, seconds in took.items()})  # noqa: T201 - the series' result
    assert {path: seconds for path, seconds in took.items() if seconds > _PAGE_WITHIN_S} == {}


@pytest.mark.chaos
def test_the_list_of_devices_is_quick_by_every_filter(big_world: World) -> None:
    (fleet,) = big_world.call("GET", "/v1/tags", prefix="fleet")["items"]
    assert fleet["devices"] == _MILLION
    took = {}
    for query in _QUERIES:
        times = []
        for _ in range(3):
            began = time.monotonic()
            big_world.call("GET", "/v1/devices", **query)
            times.append(time.monotonic() - began)
        took[str(query)] = statistics.median(times)
    print({query: round(seconds, 3) for query, seconds in took.items()})  # noqa: T201 - as above
    assert {query: seconds for query, seconds in took.items() if seconds > _LIST_WITHIN_S} == {}
