"""The list of devices: by how their id begins, by user, tag or group, and by whether they are online."""

import datetime as dt
from typing import Any, Final
from urllib.parse import urlencode

from nicegui import ui
from nicegui.element import Element

from longwire.console import parts, words
from longwire.console.api import Api, ApiError, Page
from longwire.console.live import every
from longwire.console.parts import Column, Pager, Table, bar, box, button, empty, section, text
from longwire.console.shell import Seat, console_page, go

_EVERY_S = 5.0
_FILTERS: Final = {"q": "Id begins with", "user": "User", "tag": "Tag", "group": "Group"}
_ONLINE: Final = {"": "All", "true": "Online", "false": "Offline"}
_TAGS_SHOWN = 3


def list_path(**filters: str) -> str:
    """Where the devices of these filters are listed."""
    given = {name: value for name, value in filters.items() if value}
    return f"/devices?{urlencode(given)}" if given else "/devices"


def state_of(device: dict[str, Any], is_online: bool | None) -> str:
    """One word: what keeps a device out comes before whether it is there."""
    if device["is_disabled"]:
        return "disabled"
    until = words.moment_of(device["banned_until"])
    if until is not None and until > dt.datetime.now(dt.UTC):
        return "banned"
    if is_online is None:
        return "unknown"
    return "online" if is_online else "offline"


@console_page("/devices", "Devices", nav="devices", scope="device:read")
async def devices(seat: Seat, q: str = "", user: str = "", tag: str = "", group: str = "", online: str = "") -> None:
    """Registered devices, newest first."""
    filters = {"q": q, "user": user, "tag": tag, "group": group, "online": online if online in _ONLINE else ""}
    _search(filters)
    _chosen(filters)
    with section(""):
        table = _table(filters)

        async def load(cursor: str | None) -> Page:
            given = {name: value or None for name, value in filters.items()}
            found = await seat.api.page("/v1/devices", 50, cursor, **given)
            return Page(await with_presence(seat.api, found.items), found.next_cursor)

        pager = Pager(load, table)

        try:
            loaded = [await load(None)]
        except ApiError as error:  # such as a name that none can have
            if error.status != 400:
                raise
            table.delete()
            detail = "Names have A-Z a-z 0-9 . _ : @ - and at most 64 of them; tags have = and / too."
            empty("filter_alt_off", "Nothing can be called that.", detail, ("Show all", lambda: go("/devices")))
            return

    def show(page: Page) -> None:
        # Who has gone on to older ones reads them in peace.
        if not pager.is_extended:
            pager.show(page)

    async def again() -> Page:
        return loaded.pop() if loaded else await load(None)

    every(_EVERY_S, again, show)


async def with_presence(api: Api, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The devices, each with what is known of its presence."""
    if not items:
        return items
    asked = await api.post("/v1/presence/query", {"devices": [device["device_id"] for device in items]})
    seen = {one["device_id"]: one for one in asked["items"]}
    return [device | {"presence": seen.get(device["device_id"])} for device in items]


def _search(filters: dict[str, str]) -> None:
    """A field, what it is looked for in, and who is online."""
    chosen = next((name for name in _FILTERS if filters[name]), "q")
    with bar():
        kind = ui.select(dict(_FILTERS), value=chosen).props('outlined dense aria-label="Look in"')
        kind.classes("lw-input lw-narrow")
        field = ui.input(value=filters[chosen], placeholder="kiosk-0").props("outlined dense clearable")
        field.props["aria-label"] = "Search devices"
        field.classes("lw-input")

        def search() -> None:
            go(list_path(**filters | {chosen: "", kind.value: (field.value or "").strip()}))

        field.on("keydown.enter", search)
        button("Search", search, kind="main", icon_name="search")
        with box("lw-choice") as choice:
            choice.props.update({"role": "group", "aria-label": "Presence"})
            for value, label in _ONLINE.items():
                _choice(label, list_path(**filters | {"online": value}), is_on=filters["online"] == value)


def _choice(label: str, target: str, *, is_on: bool) -> None:
    link = parts.link(label, target)
    link.classes(replace="lw-choice-item")
    if is_on:
        link.props["aria-current"] = "true"


def _chosen(filters: dict[str, str]) -> None:
    """What is looked for, each with a way to let go of it."""
    given = [name for name in _FILTERS if filters[name]]
    if not given:
        return
    with box("lw-tags"):
        for name in given:
            with Element("a").classes("lw-tag") as drawn:
                drawn.props["href"] = list_path(**filters | {name: ""})
                drawn.props["title"] = "Take this away"
                text("span", f"{_FILTERS[name]}: {filters[name]}")
                parts.icon("close")


def _table(filters: dict[str, str]) -> Table:
    def none() -> None:
        if any(filters.values()):
            empty("filter_alt_off", "No device meets this.", "", ("Show all", lambda: go("/devices")))
        else:
            detail = "A device registers itself by its SDK, or is registered with POST /v1/devices/batch. To try it:"
            empty("devices", "No device is registered.", detail, command="longwire device listen alice")

    return Table(
        [
            Column("device", "Device", lambda device: device["device_id"], kind="code"),
            Column("state", "State", _state, kind="badge"),
            Column("user", "User", lambda device: device["user"]),
            Column("tags", "Tags", _tags, hides_below=600),
            Column("seen", "Last seen", _seen, kind="time"),
            Column("platform", "Platform", _platform, hides_below=900),
            Column("registered", "Registered", lambda device: device["registered_at"], kind="time", hides_below=900),
        ],
        key="device_id",
        on_open=lambda device: go(f"/devices/{device['device_id']}"),
        empty=none,
    )


def _state(device: dict[str, Any]) -> str:
    presence = device["presence"]
    return state_of(device, None if presence is None else presence["online"])


def _seen(device: dict[str, Any]) -> str | None:
    presence = device["presence"] or {}
    seen: str | None = presence.get("last_seen_at")
    return seen


def _tags(device: dict[str, Any]) -> str:
    own = [tag for tag in device["tags"] if not tag.startswith("sys:")]
    more = f" +{len(own) - _TAGS_SHOWN}" if len(own) > _TAGS_SHOWN else ""
    return ", ".join(own[:_TAGS_SHOWN]) + more or words.UNKNOWN


def _platform(device: dict[str, Any]) -> str:
    return " ".join(one for one in (device["platform"], device["app_version"]) if one) or words.UNKNOWN
